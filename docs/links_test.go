package docs

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/yuin/goldmark/ast"
)

// TestLinks follows all links that stay in the project.
func TestLinks(t *testing.T) {
	all := pages(t)
	anchors := map[string]map[string]bool{}
	for _, p := range all {
		anchors[p.name] = p.anchors()
	}
	for _, p := range all {
		for _, link := range p.links() {
			u, err := url.Parse(link)
			if err != nil {
				t.Errorf("%s: %v", p.name, err)
				continue
			}
			if u.Scheme != "" {
				continue
			}
			target := p.name
			if u.Path != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(p.name), u.Path))
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s, which is not there", p.name, link)
			}
			if u.Fragment != "" && !anchors[target][u.Fragment] {
				t.Errorf("%s links to %s, but %s has no such heading", p.name, link, target)
			}
		}
	}
}

var (
	htmlLink = regexp.MustCompile(`(?:href|src|srcset)="([^"]+)"`)
	spaces   = regexp.MustCompile(`\s`)
)

func (p page) links() (all []string) {
	html := func(b []byte) {
		for _, m := range htmlLink.FindAllSubmatch(b, -1) {
			all = append(all, string(m[1]))
		}
	}
	p.walk(func(n ast.Node) {
		switch n := n.(type) {
		case *ast.Link:
			all = append(all, string(n.Destination))
		case *ast.Image:
			all = append(all, string(n.Destination))
		case *ast.HTMLBlock:
			html(n.Lines().Value(p.src))
		case *ast.RawHTML:
			html(n.Segments.Value(p.src))
		}
	})
	return all
}

// anchors returns the fragments by which GitHub knows the page's headings.
func (p page) anchors() map[string]bool {
	seen := map[string]bool{}
	p.walk(func(n ast.Node) {
		if h, ok := n.(*ast.Heading); ok {
			name := strings.Map(func(r rune) rune {
				if unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_' || unicode.IsSpace(r) {
					return unicode.ToLower(r)
				}
				return -1
			}, p.text(h))
			name = spaces.ReplaceAllString(strings.TrimSpace(name), "-")
			anchor := name
			for i := 1; seen[anchor]; i++ {
				anchor = fmt.Sprint(name, "-", i)
			}
			seen[anchor] = true
		}
	})
	return seen
}
