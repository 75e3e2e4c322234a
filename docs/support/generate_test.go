package support

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// feature is a directory in testdata/features.
type feature struct {
	dir    string
	en, ja string
	grpc   bool   // gRPC's stubs are generated into the same package
	option string // for protoc-gen-go-ttrpc
	// Words in the .proto files that could be in the generated code, too, and what it means if they are not.
	words map[string]string
}

var features = []feature{
	{dir: "scalars", en: "the scalar types", ja: "スカラー型"},
	{dir: "composite", en: "messages in messages, nested ones, `repeated`", ja: "メッセージの中のメッセージ、入れ子の定義、`repeated`"},
	{dir: "maps", en: "`map`", ja: "`map`"},
	{dir: "oneof", en: "`oneof`", ja: "`oneof`"},
	{dir: "enums", en: "`enum`, also with aliases and negative numbers", ja: "`enum`（別名と負の値も）"},
	{dir: "optional", en: "proto3 `optional`", ja: "proto3 の `optional`"},
	{
		dir: "proto2",
		en:  "proto2: `required`, defaults, `group`, extensions", ja: "proto2：`required`、既定値、`group`、拡張",
	},
	{dir: "edition2023", en: "`edition = \"2023\"`", ja: "`edition = \"2023\"`"},
	{dir: "edition2024", en: "`edition = \"2024\"`", ja: "`edition = \"2024\"`"},
	{
		dir: "wellknown",
		en:  "`Timestamp`, `Duration`, `Struct`, `FieldMask`, wrappers; `Empty` as a request and an answer",
		ja:  "`Timestamp`、`Duration`、`Struct`、`FieldMask`、ラッパー。リクエストと応答の `Empty`",
	},
	{dir: "any", en: "`Any`", ja: "`Any`"},
	{dir: "options", en: "custom options", ja: "独自のオプション"},
	{dir: "imported", en: "messages of another package", ja: "別パッケージのメッセージ"},
	{dir: "files", en: "several files in one package", ja: "1 つのパッケージに複数のファイル"},
	{dir: "packageless", en: "a file without `package`", ja: "`package` のないファイル"},
	{dir: "services", en: "two services in one file", ja: "1 つのファイルに 2 つのサービス"},
	{dir: "empty", en: "a service without methods", ja: "メソッドのないサービス"},
	{dir: "emptymessage", en: "a message without fields", ja: "フィールドのないメッセージ"},
	{dir: "unary", en: "unary calls", ja: "単項呼び出し"},
	{dir: "client", en: "client streams", ja: "クライアントストリーム"},
	{dir: "server", en: "server streams", ja: "サーバーストリーム"},
	{dir: "bidi", en: "bidirectional streams", ja: "双方向ストリーム"},
	{
		dir: "comments", en: "comments, `deprecated`", ja: "コメント、`deprecated`",
		words: map[string]string{"COMMENT": "comments are left out", "Deprecated:": "the deprecation is left out"},
	},
	{
		dir: "grpc", grpc: true,
		en: "stubs of gRPC in the same package", ja: "同じパッケージに gRPC のスタブ",
	},
	{
		dir: "grpcprefix", grpc: true, option: "prefix=TTRPC",
		en: "the same, with the option `prefix=TTRPC`", ja: "同上、オプション `prefix=TTRPC` を付けて",
	},
	{
		dir: "fieldnames",
		en:  "fields such as `type`, `func`, `reset`, `proto_message`",
		ja:  "`type`、`func`、`reset`、`proto_message` などのフィールド",
	},
	{
		dir: "methodnames",
		en:  "methods such as `String`, `Type`, `Client`, `Error`", ja: "`String`、`Type`、`Client`、`Error` などのメソッド",
	},
	{
		dir: "smallunary", en: "unary methods in lower case: `type`, `get_values`",
		ja: "小文字の単項メソッド：`type`、`get_values`",
	},
	{
		dir: "smallstream", en: "streaming methods in lower case: `func`, `get_values`",
		ja: "小文字のストリームのメソッド：`func`、`get_values`",
	},
	{dir: "smallservice", en: "a service in lower case: `small_service`", ja: "小文字のサービス：`small_service`"},
	{
		dir: "messagename", en: "a service `User` beside a message `UserService`",
		ja: "メッセージ `UserService` と並ぶサービス `User`",
	},
}

// row is the line of a feature. The cells of generators come first, then those of runtimes.
type row struct {
	feature
	cells []cell
	code  bool // a generator has written code, which is in the scratch module
}

// generate lets all generators write the code of all features, and keeps that of the first one that works.
func (l *lab) generate(versions []string) ([]*row, error) {
	var rows []*row
	for _, f := range features {
		r := &row{feature: f}
		rows = append(rows, r)
		kept := filepath.Join(l.scratch, "gen", f.dir)
		for _, v := range versions {
			out := filepath.Join(l.dir, "out", v, f.dir)
			c, err := l.generateOne(f, l.exe(v, "protoc-gen-go-ttrpc"), out)
			if err != nil {
				return nil, err
			}
			if ok, err := sameFiles(kept, out); r.code && c.works() && (err != nil || !ok) {
				c = append(c, "the code differs")
			}
			r.cells = append(r.cells, c)
			if c.works() && !r.code {
				r.code = true
				if err := os.CopyFS(kept, os.DirFS(out)); err != nil {
					return nil, err
				}
			}
		}
		if r.code {
			if err := writeEcho(kept, f.dir); err != nil {
				return nil, err
			}
		}
	}
	return rows, nil
}

// generateOne runs buf for each plugin on its own: otherwise the failure of one ends the others, who may say so first.
func (l *lab) generateOne(f feature, generator, out string) (cell, error) {
	plugins := [][2]string{{l.exe("protoc-gen-go", "protoc-gen-go")}, {generator, f.option}}
	if f.grpc {
		plugins = append(plugins, [2]string{l.exe("protoc-gen-go-grpc", "protoc-gen-go-grpc")})
	}
	var warned string
	for _, plugin := range plugins {
		options := []string{"paths=source_relative"}
		if plugin[1] != "" {
			options = append(options, plugin[1])
		}
		template, err := json.Marshal(map[string]any{
			"version": "v2",
			"managed": map[string]any{"enabled": true, "override": []any{map[string]string{
				"file_option": "go_package_prefix", "value": module + "/gen/" + f.dir,
			}}},
			"plugins": []any{map[string]any{"local": plugin[0], "out": ".", "opt": options}},
		})
		if err != nil {
			return nil, err
		}
		r, err := command(filepath.Join("testdata/features", f.dir), nil, l.exe("buf", "buf"), "generate",
			"--template", string(template), "-o", out)
		said := l.tidy(r.stderr)
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			return cell{"fails: `" + said + "`"}, nil
		} else if err != nil {
			return nil, err
		}
		warned += said
	}
	if warned != "" {
		return cell{"works", "with the warning: `" + warned + "`"}, nil
	}
	return f.missing(out)
}

// missing returns what the ttrpc code lacks of the words that it could have.
func (f feature) missing(out string) (cell, error) {
	c := cell{"works"}
	files, err := filepath.Glob(filepath.Join(out, "*_ttrpc.pb.go"))
	if err != nil {
		return nil, err
	}
	for _, word := range slices.Sorted(maps.Keys(f.words)) {
		found := false
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			found = found || bytes.Contains(b, []byte(word))
		}
		if !found {
			c = append(c, f.words[word])
		}
	}
	return c, nil
}

var (
	// What buf says about the end of a plugin that has said why itself.
	aftermath = regexp.MustCompile(`(?m)^Failure: plugin .*exit status \d+\n?`)
	label     = regexp.MustCompile(`(?m)^(WARN|Failure:)\s+`)
	space     = regexp.MustCompile(`\s+`)
)

// tidy makes one line of what a program has printed, without paths of this machine.
func (l *lab) tidy(text string) string {
	text = label.ReplaceAllString(aftermath.ReplaceAllString(text, ""), "")
	text = regexp.MustCompile(regexp.QuoteMeta(l.dir)+`[^\s":]*/`).ReplaceAllString(text, "")
	return strings.TrimSpace(strings.ReplaceAll(space.ReplaceAllString(text, " "), "`", "'"))
}

// sameFiles reports whether all files of b are in a.
func sameFiles(a, b string) (same bool, err error) {
	same = true
	err = fs.WalkDir(os.DirFS(b), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		one, err := os.ReadFile(filepath.Join(a, path))
		if err != nil {
			return err
		}
		other, err := os.ReadFile(filepath.Join(b, path))
		same = same && bytes.Equal(one, other)
		return err
	})
	return same, err
}

// writeEcho adds a file to each package that has services. It implements and registers them.
func writeEcho(dir, feature string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*_ttrpc.pb.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		code, err := echo(file, feature)
		if err != nil {
			return err
		}
		// The compiler sorts errors by file. Those of this one must not come first.
		name := filepath.Join(dir, "zz_"+strings.ReplaceAll(filepath.Base(file), "_ttrpc.pb.go", "_echo.go"))
		if err := os.WriteFile(name, []byte(code), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// echo returns an implementation of the services in a generated file: it reads the methods off the interfaces.
func echo(file, feature string) (string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		return "", err
	}
	var body strings.Builder
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		service, ok := strings.CutSuffix(spec.Name.Name, "Service")
		methods, isInterface := spec.Type.(*ast.InterfaceType)
		if !ok || !isInterface {
			return true
		}
		fmt.Fprintf(&body, "type echo%s struct{}\n", service)
		for _, m := range methods.Methods.List {
			fmt.Fprintf(&body, "func (echo%s) %s\n", service, method(m.Names[0].Name, m.Type.(*ast.FuncType)))
		}
		fmt.Fprintf(&body, `func init() {
	registry.Services = append(registry.Services, registry.Service{
		Feature:  %q,
		Register: func(s *ttrpc.Server) { Register%sService(s, echo%[2]s{}) },
		Client:   func(c *ttrpc.Client) any { return New%[2]sClient(c) },
	})
}
`, feature, service)
		return true
	})
	imports := fmt.Sprintf("import ttrpc \"github.com/containerd/ttrpc\"\nimport %q\n", module+"/registry")
	for _, i := range parsed.Imports {
		if i.Name.Name != "ttrpc" && strings.Contains(body.String(), i.Name.Name+".") {
			imports += fmt.Sprintf("import %s %s\n", i.Name.Name, i.Path.Value)
		}
	}
	return "package " + parsed.Name.Name + "\n" + imports + body.String(), nil
}

// method returns a method whose signature is one of those that the four kinds of call have.
func method(name string, f *ast.FuncType) string {
	last := f.Params.List[len(f.Params.List)-1].Type
	_, message := last.(*ast.StarExpr)
	arg := types.ExprString(last)
	switch answers := len(f.Results.List) == 2; {
	case answers && message:
		return fmt.Sprintf("%s(_ context.Context, m %s) (%[2]s, error) { return m, nil }", name, arg)
	case answers:
		return fmt.Sprintf("%s(_ context.Context, s %s) (%s, error) { return registry.Join(s.Recv) }",
			name, arg, types.ExprString(f.Results.List[0].Type))
	case len(f.Params.List) == 3:
		return fmt.Sprintf("%s(_ context.Context, m %s, s %s) error { return registry.Split(m, s.Send) }",
			name, types.ExprString(f.Params.List[1].Type), arg)
	default:
		return fmt.Sprintf("%s(_ context.Context, s %s) error { return registry.Echo(s.Recv, s.Send) }", name, arg)
	}
}
