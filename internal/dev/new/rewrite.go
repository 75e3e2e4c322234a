package main

import (
	"bytes"
	_ "embed"
	"go/format"
	"go/scanner"
	"go/token"
	"path"
	"regexp"
	"strings"
	"text/template"
)

//go:embed README.md.tmpl
var readme string

// aboutService are the files, and the directories, in which names of the service stand.
var aboutService = regexp.MustCompile(`^(proto/|server/|client/|internal/smoke/|docs/systemd/|buf\.yaml$)`)

// rewrite returns the files of the new project.
func (n names) rewrite(from project) (map[string]file, error) {
	files := map[string]file{}
	for name, f := range from.files {
		if bytes.IndexByte(f.content, 0) < 0 {
			text := starterOnly.ReplaceAllString(string(f.content), "")
			if aboutService.MatchString(name) {
				text = n.renameService(name, text)
				name = n.renameService("", name)
			}
			f.content = []byte(n.renameModule(from, text))
			name = n.renameModule(from, name)
		}
		if path.Ext(name) == ".go" { // names of another length move what stands in columns, and sort differently
			var err error
			if f.content, err = format.Source(f.content); err != nil {
				return nil, err
			}
		}
		files[name] = f
	}
	text, err := n.readme()
	files["README.md"] = file{text, 0o644}
	return files, err
}

// starterOnly matches a comment that says so, the line below it, and an empty line.
var starterOnly = regexp.MustCompile(`(?m)^ *# The starter's own: .*\n.*\n\n?`)

func (n names) readme() ([]byte, error) {
	t, err := template.New("README.md").Parse(readme)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]string{
		"App": n.app, "Module": n.module, "Package": n.pkg, "Service": n.name, "Dir": n.dir(), "File": n.file,
		"Go": n.goPackage(), "Value": n.value,
	})
	return b.Bytes(), err
}

// serviceNames matches the names of the service in text, the longest first.
var serviceNames = regexp.MustCompile(`example\.v1\b|example/v1\b|examplev1\b|example\.(go|proto|sock)\b|Example`)

// renameService gives the service its names. In a Go file, it replaces the name of the implementation in code and at
// the start of comments only, so that "for example" stays.
func (n names) renameService(name, text string) string {
	if path.Ext(name) != ".go" {
		return n.renameWords(text)
	}
	var out strings.Builder
	var s scanner.Scanner
	src := []byte(text)
	s.Init(token.NewFileSet().AddFile(name, -1, len(src)), src, nil, scanner.ScanComments)
	done := 0
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return out.String() + text[done:]
		}
		was := lit
		switch {
		case tok == token.IDENT && lit == example.value:
			lit = n.value
		case tok == token.IDENT || tok == token.STRING || tok == token.COMMENT:
			if after, ok := strings.CutPrefix(lit, "// "+example.value+" "); ok {
				lit = "// " + n.value + " " + after
			}
			lit = n.renameWords(lit)
		default:
			continue
		}
		at := int(pos) - 1 // the file is the set's only one, whose positions start at 1
		out.WriteString(text[done:at])
		out.WriteString(lit)
		done = at + len(was)
	}
}

func (n names) renameWords(text string) string {
	return serviceNames.ReplaceAllStringFunc(text, func(s string) string {
		switch {
		case s == example.pkg:
			return n.pkg
		case s == example.dir():
			return n.dir()
		case s == example.goPackage():
			return n.goPackage()
		case s == example.name:
			return n.name
		}
		return n.file + strings.TrimPrefix(s, example.file)
	})
}

// renameModule replaces the module path where it stands as a whole, and the starter's name everywhere. What is before
// or after the path can make it part of another one, as in example.com/app-tools and example.com/app.v2. A slash after
// it only leads to a package, and a full stop may end a sentence.
func (n names) renameModule(from project, text string) string {
	name := path.Base(from.module)
	old := regexp.MustCompile(`[\w./-]?` + regexp.QuoteMeta(from.module) + `(\.\w|[\w-])?|` + regexp.QuoteMeta(name))
	return old.ReplaceAllStringFunc(text, func(s string) string {
		if s == from.module {
			return n.module
		}
		return strings.ReplaceAll(s, name, n.app)
	})
}
