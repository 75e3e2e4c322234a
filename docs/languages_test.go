package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark/ast"
)

// TestLanguages holds each page to its Japanese one: the same sections, and in each the same blocks, words of code and
// numbers.
func TestLanguages(t *testing.T) {
	japanese := map[string]page{}
	for _, p := range pages(t) {
		if name, ok := strings.CutSuffix(p.name, ".ja.md"); ok {
			japanese[name+".md"] = p
		}
	}
	for _, en := range pages(t) {
		if strings.HasSuffix(en.name, ".ja.md") {
			continue
		}
		ja, ok := japanese[en.name]
		if !ok {
			t.Errorf("%s has no Japanese page", en.name)
			continue
		}
		if got, want := len(ja.blocks()), len(en.blocks()); got != want {
			t.Errorf("%s has %d blocks, want the %d of %s", ja.name, got, want, en.name)
		} else {
			for i, b := range en.blocks() {
				o := ja.blocks()[i]
				if b.word(0) != "mermaid" && (o.text != b.text || !slices.Equal(o.words, b.words)) {
					t.Errorf("%s:%d is not the block of %s:%d", ja.name, o.line, en.name, b.line)
				}
			}
		}
		ours, theirs := en.sections(), ja.sections()
		if len(ours) != len(theirs) {
			t.Errorf("%s has %d sections, want the %d of %s", ja.name, len(theirs), len(ours), en.name)
			continue
		}
		for i, s := range ours {
			o := theirs[i]
			if o.level != s.level {
				t.Errorf("%s: %q has level %d, want %d as %q", ja.name, o.title, o.level, s.level, s.title)
			}
			same := func(what string, got, want []string) {
				t.Helper()
				for _, w := range want {
					if !slices.Contains(got, w) {
						t.Errorf("%s: %q lacks the %s %s of %q", ja.name, o.title, what, w, s.title)
					}
				}
			}
			same("code", o.code, s.code)
			same("number", o.numbers, s.numbers)
			s.code, o.code = o.code, s.code
			for _, c := range s.code {
				if !slices.Contains(o.code, c) {
					t.Errorf("%s: %q has the code %s, which %q lacks", ja.name, o.title, c, s.title)
				}
			}
			for _, n := range o.numbers {
				if !slices.Contains(append(s.numbers, s.words...), n) {
					t.Errorf("%s: %q has the number %s, which %q lacks", ja.name, o.title, n, s.title)
				}
			}
		}
	}
}

// section is the text below a heading, without that below the next one.
type section struct {
	title                string
	level                int
	code, numbers, words []string // words are numbers that are written out
}

var number = regexp.MustCompile(`[0-9]+(?:[.,][0-9]+)*`)

// writtenOut are words for numbers that Japanese has digits for.
var writtenOut = map[string]string{
	"zero": "0", "none": "0", "no": "0",
	"one": "1", "once": "1", "a": "1", "an": "1", "single": "1", "first": "1", "another": "1", "each": "1",
	"two": "2", "twice": "2", "second": "2", "both": "2", "half": "2",
	"three": "3", "third": "3", "thirds": "3", "quarters": "3",
	"four": "4", "quarter": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
	"hundred": "100", "thousand": "1000",
}

var word = regexp.MustCompile(`[A-Za-z]+`)

func (p page) sections() (all []section) {
	all = []section{{}}
	p.walk(func(n ast.Node) {
		s := &all[len(all)-1]
		switch n := n.(type) {
		case *ast.Heading:
			all = append(all, section{title: p.text(n), level: n.Level})
		case *ast.CodeSpan:
			s.code = append(s.code, strings.Join(strings.Fields(p.text(n)), " "))
		case *ast.Text:
			if n.Parent().Kind() == ast.KindCodeSpan {
				return
			}
			text := string(n.Value(p.src))
			s.numbers = append(s.numbers, number.FindAllString(text, -1)...)
			for _, w := range word.FindAllString(text, -1) {
				if value := writtenOut[strings.ToLower(w)]; value != "" {
					s.words = append(s.words, value)
				}
			}
			if strings.Contains(text, "three quarters") {
				s.words = append(s.words, "4")
			}
			if strings.Contains(text, "quarter of an hour") {
				s.words = append(s.words, "15")
			}
		}
	})
	return all
}

// TestJapaneseLines wants Japanese sentences in one line: GitHub shows a line's end as a blank.
func TestJapaneseLines(t *testing.T) {
	for _, p := range pages(t) {
		if strings.HasSuffix(p.name, ".ja.md") {
			p.walk(func(n ast.Node) {
				text, ok := n.(*ast.Text)
				if ok && text.SoftLineBreak() && len(text.Value(p.src)) > 0 { // not between tags
					t.Errorf("%s: the line ends within a paragraph: %s", p.name, text.Value(p.src))
				}
			})
		}
	}
}

// TestFigures wants the figures that README.md names at its top to be those of the table that the benchmark writes.
func TestFigures(t *testing.T) {
	src := string(pages(t)[0].src)
	top, table, ok := strings.Cut(src, "<!-- make bench writes this -->")
	figures := regexp.MustCompile(`\b\d+\.\d\d\b`).FindAllString(top, -1)
	if !ok || len(figures) == 0 {
		t.Fatal("README.md has no figures")
	}
	for _, f := range figures {
		if !strings.Contains(table, " "+f+" ") {
			t.Errorf("README.md says %s, which its table does not", f)
		}
	}
}
