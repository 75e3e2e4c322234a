package cli

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/containerd/ttrpc"
)

// metadataFlag is a flag that collects KEY=VALUE pairs. The first pair replaces the default. An empty value sends none.
type metadataFlag struct {
	ttrpc.MD
	set bool
}

// String returns the pairs in the form of Set. The help shows the default in this form.
func (m *metadataFlag) String() string {
	var pairs []string
	for k, values := range m.MD {
		for _, v := range values {
			pairs = append(pairs, k+"="+v)
		}
	}
	return strings.Join(pairs, " ")
}

// Set adds one pair.
func (m *metadataFlag) Set(pair string) error {
	if !m.set {
		m.MD, m.set = ttrpc.MD{}, true
	}
	if pair == "" {
		return nil
	}
	key, value, ok := strings.Cut(pair, "=")
	if !ok || strings.TrimSpace(key) == "" {
		return errors.New("want key=value")
	}
	if !utf8.ValidString(pair) {
		return errors.New("want valid UTF-8, because protobuf allows no other text")
	}
	m.Append(key, value)
	return nil
}
