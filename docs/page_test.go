// Package docs has the tests that hold the pages for readers true: README*.md and all of docs/.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

const root = ".."

// page is a page in Markdown.
type page struct {
	name string // from the project's root
	src  []byte
	doc  ast.Node
}

// pages returns all pages.
func pages(t *testing.T) (all []page) {
	t.Helper()
	add := func(name string) {
		src, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		markdown := goldmark.New(goldmark.WithExtensions(extension.GFM))
		all = append(all, page{name, src, markdown.Parser().Parse(text.NewReader(src))})
	}
	add("README.md")
	add("README.ja.md")
	err := fs.WalkDir(os.DirFS(root), "docs", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			add(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// block is a fenced block.
type block struct {
	words  []string // of the info string: the language, and what is to be done with the block
	text   string
	line   int    // of its first line
	unrun  string // why it is not run, from the comment <!-- not run: … --> before it
	inPart string // the heading of level 2 above it
}

func (b block) word(i int) string {
	if i < len(b.words) {
		return b.words[i]
	}
	return ""
}

var notRun = regexp.MustCompile(`^<!-- not run: (.+?) -->\s*$`)

// blocks returns the page's blocks in order.
func (p page) blocks() (all []block) {
	part := ""
	p.walk(func(n ast.Node) {
		switch n := n.(type) {
		case *ast.Heading:
			if n.Level <= 2 {
				part = p.text(n)
			}
		case *ast.FencedCodeBlock:
			b := block{text: string(n.Lines().Value(p.src)), inPart: part}
			if n.Info != nil {
				b.words = strings.Fields(string(n.Info.Segment.Value(p.src)))
			}
			if n.Lines().Len() > 0 {
				b.line = 1 + strings.Count(string(p.src[:n.Lines().At(0).Start]), "\n")
			}
			if html, ok := n.PreviousSibling().(*ast.HTMLBlock); ok {
				if m := notRun.FindSubmatch(html.Lines().Value(p.src)); m != nil {
					b.unrun = string(m[1])
				}
			}
			all = append(all, b)
		}
	})
	return all
}

// walk visits each node in the order of the text.
func (p page) walk(visit func(ast.Node)) {
	_ = ast.Walk(p.doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			visit(n)
		}
		return ast.WalkContinue, nil
	})
}

// text returns what a reader sees of the node.
func (p page) text(n ast.Node) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.Text:
			if entering {
				b.Write(n.Value(p.src))
				if n.SoftLineBreak() {
					b.WriteByte('\n')
				}
			}
		case *ast.String:
			if entering {
				b.Write(n.Value)
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}
