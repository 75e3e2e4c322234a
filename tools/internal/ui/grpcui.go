package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
)

// rename takes grpcui's form and puts ttcurl where it has grpcurl. The line with the command is left to our own script:
// grpcui's is for grpcurl, and puts what is typed into the page as HTML.
func rename(form template.HTML) (template.HTML, error) {
	s := string(form)
	for old, replacement := range map[string]string{
		"<h3>gRPCurl</h3>":    "<h3>The same in a shell</h3>",
		`id="grpc-curl-text"`: `id="ttcurl-command"`,
	} {
		if strings.Count(s, old) != 1 {
			return "", fmt.Errorf("grpcui's form does not have %s once", old)
		}
		s = strings.Replace(s, old, replacement, 1)
	}
	return template.HTML(s), nil //nolint:gosec // it came as HTML
}

// reasons shows what is wrong with a request as the call's status. grpcui answers with an HTTP error, of which the page
// shows that there was one.
func reasons(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		held := &held{ResponseWriter: w}
		h.ServeHTTP(held, r)
		if !held.failed {
			return
		}
		text := strings.TrimPrefix(strings.TrimSpace(held.text.String()), "Unexpected error: ")
		_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{
			"code": codes.InvalidArgument, "name": codes.InvalidArgument.String(), "message": text,
		}})
	})
}

// receivedKey is in the context of a call, for the number of messages that have come.
type receivedKey struct{}

// progress serves how many messages the call has that the page has given a name in the header X-Ttcurl-Call.
func progress(h http.Handler) http.Handler {
	var calls sync.Map // of *atomic.Int64, by name
	mux := http.NewServeMux()
	mux.HandleFunc("GET /progress", func(w http.ResponseWriter, r *http.Request) {
		received, ok := calls.Load(r.FormValue("call"))
		if !ok {
			received = new(atomic.Int64)
		}
		fmt.Fprint(w, received.(*atomic.Int64).Load())
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if name := r.Header.Get("X-Ttcurl-Call"); name != "" {
			received := new(atomic.Int64)
			calls.Store(name, received)
			defer calls.Delete(name)
			r = r.WithContext(context.WithValue(r.Context(), receivedKey{}, received))
		}
		h.ServeHTTP(w, r)
	})
	return mux
}

// held keeps answers with status 500 to itself.
type held struct {
	http.ResponseWriter
	failed bool
	text   bytes.Buffer
}

func (h *held) WriteHeader(code int) {
	if h.failed = code == http.StatusInternalServerError; !h.failed {
		h.ResponseWriter.WriteHeader(code)
		return
	}
	h.Header().Set("Content-Type", "application/json")
}

func (h *held) Write(b []byte) (int, error) {
	if h.failed {
		return h.text.Write(b)
	}
	return h.ResponseWriter.Write(b)
}
