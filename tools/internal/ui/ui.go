// Package ui serves grpcui, a web form for calls, for a ttrpc server.
package ui

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/fullstorydev/grpcui"
	"github.com/fullstorydev/grpcui/standalone"
	"github.com/fullstorydev/grpcurl"
	"github.com/jhump/protoreflect/desc" //nolint:staticcheck // grpcui takes these descriptors
	"google.golang.org/grpc"
)

// Options say what the page shows and calls.
type Options struct {
	Conn   grpc.ClientConnInterface // makes the calls; its errors have a status
	Source grpcurl.DescriptorSource // the services and messages; read once, before the page is served
	Target string                   // the server's address, for the title

	// Command begins the command lines that the page shows for its calls: the program, its flags and the address.
	Command []string

	Metadata     []string // "name: value", in the form from the start
	EmitDefaults bool     // fields without a value are shown, too
	MaxMessages  int      // of one call that the page takes before it ends the call; default DefaultMaxMessages
}

// DefaultMaxMessages is how many messages of one call the page takes by default. It shows them when the call has ended,
// and until then they are held in memory.
const DefaultMaxMessages = 1000

// Serve serves the page on a free port of 127.0.0.1 and writes its URL to stdout, as one line. It returns nil when ctx
// ends, which also ends the calls that are still open.
//
// The URL has a secret in its path: other users of the machine reach the port, too, and may not call what the caller of
// Serve may.
func Serve(ctx context.Context, o Options, stdout io.Writer) error {
	page, err := handler(o)
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address, path := l.Addr().String(), "/"+rand.Text()
	server := &http.Server{
		Handler:           guard(address, http.StripPrefix(path, page), path),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if _, err := fmt.Fprintf(stdout, "http://%s%s/\n", address, path); err != nil {
		_ = l.Close()
		return err
	}
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// guard passes requests below path on to page if they can only come from the page itself. A name that an attacker
// points at 127.0.0.1 makes their pages our origin to a browser, but it stands in Host.
func guard(address string, page http.Handler, path string) http.Handler {
	_, port, _ := net.SplitHostPort(address)
	mux := http.NewServeMux()
	mux.Handle(path+"/", http.NewCrossOriginProtection().Handler(page))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "Not found: open the URL as it was printed, with the secret at its end.", http.StatusNotFound)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != address && r.Host != net.JoinHostPort("localhost", port) {
			http.Error(w, fmt.Sprintf("Host is %q: open the page as http://%s", r.Host, address), http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy",
			"default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer") // the URL is a secret
		h.Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

//go:embed index.html
var index string

func handler(o Options) (http.Handler, error) {
	methods, err := methods(o.Source)
	if err != nil {
		return nil, err
	}
	files, err := grpcurl.GetAllFiles(o.Source)
	if err != nil {
		return nil, err
	}
	page, err := template.New("index.html").Funcs(template.FuncMap{
		"command": func() []string { return o.Command },
		"rename":  rename,
	}).Parse(index)
	if err != nil {
		return nil, err
	}
	if o.MaxMessages == 0 {
		o.MaxMessages = DefaultMaxMessages
	}
	return progress(reasons(standalone.Handler(&conn{o.Conn, o.MaxMessages}, o.Target, methods, files,
		standalone.WithIndexTemplate(page),
		standalone.WithDefaultMetadata(o.Metadata),
		standalone.EmitDefaults(o.EmitDefaults),
	))), nil
}

// methods returns the methods of all services except those that give the schema.
func methods(source grpcurl.DescriptorSource) ([]*desc.MethodDescriptor, error) {
	names, err := source.ListServices()
	if err != nil {
		return nil, err
	}
	var services []*desc.ServiceDescriptor
	for _, name := range names {
		if strings.HasPrefix(name, "grpc.reflection.") {
			continue
		}
		d, err := source.FindSymbol(name)
		if err != nil {
			return nil, err
		}
		service, ok := d.(*desc.ServiceDescriptor)
		if !ok {
			return nil, fmt.Errorf("%s is not a service in the schema", name)
		}
		services = append(services, service)
	}
	methods := grpcui.AllMethodsForServices(services)
	if len(methods) == 0 {
		return nil, errors.New("the schema has no method to call")
	}
	return methods, nil
}
