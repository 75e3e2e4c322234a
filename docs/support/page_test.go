package support

import (
	"fmt"
	"slices"
	"strings"
)

// cell has what was seen, as phrases in English, in which the words between backquotes are those of a program.
type cell []string

func (c cell) works() bool { return c[0] == "works" }

// page is what both languages have in common.
type page struct {
	generators, runtimes []string
	library              string // the runtime that it is built with
	rows                 []*row
	behaviours           []behaviours
}

// language has the text of a page, and turns phrases into it.
type language struct {
	feature   func(feature) string
	behaviour func(behaviourRow) string
	phrase    func(string) (string, error)
	separator string

	text                        string // of the page, with %[1]s and %[2]s for the tables
	generator, runtime, library string // heads of columns
}

type behaviourRow struct{ name, en, ja string }

var behaviourRows = []behaviourRow{
	{"metadata unary", "metadata, to a unary handler", "メタデータ（単項のハンドラーへ）"},
	{"metadata stream", "metadata, to a stream's handler", "メタデータ（ストリームのハンドラーへ）"},
	{"deadline unary", "the deadline, to a unary handler", "期限（単項のハンドラーへ）"},
	{"deadline stream", "the deadline, to a stream's handler", "期限（ストリームのハンドラーへ）"},
	{"cancel unary", "a unary call is cancelled", "単項呼び出しの取り消し"},
	{"cancel stream", "a stream is cancelled", "ストリームの取り消し"},
	{"large request", "a request over 4 MiB", "4 MiB を超えるリクエスト"},
	{"large answer", "an answer over 4 MiB", "4 MiB を超える応答"},
	{"panic", "a handler panics", "ハンドラーのパニック"},
	{"frames", "two frames: a unary request, and a stream's message on it", "2 つのフレーム：単項のリクエストと、そこへ送るストリームのメッセージ"},
	{"slow client", "a server sends many messages, and the client does not receive", "サーバーが大量に送り、クライアントは受信しない"},
	{"slow handler", "a client sends many messages, and the handler does not receive", "クライアントが大量に送り、ハンドラーは受信しない"},
	{"shutdown", "the server is shut down while a call is open", "呼び出しの途中でサーバーを停止"},
	{"socket", "a server starts on the socket that a killed one has left", "強制終了したサーバーが残したソケットで起動"},
}

var english = language{
	feature:   func(f feature) string { return f.en },
	behaviour: func(r behaviourRow) string { return r.en },
	phrase:    func(s string) (string, error) { return s, nil },
	separator: "; ",
	generator: "generator", runtime: "runtime", library: "`ttrpcx` on",
	text: `# What of protobuf and ttrpc works

A test has generated, compiled and called everything on this page, on Linux, and has written what it saw into the
tables.

日本語: [support.ja.md](support.ja.md)

This command writes both pages anew. Without ` + "`-update`" + `, it fails if a cell is not what it sees:
` + "`cd docs && go test ./support -update`" + `

Other versions are one command, too: %[3]s

## protobuf

Each line is a feature of .proto files, with a service that uses it. The columns of generators tell how
protoc-gen-go-ttrpc of that version takes it, run by buf beside the protoc-gen-go of ` + "`buf.gen.yaml`" + `. Where one
writes other code than the leftmost one that works, the cell says so ("the code differs").

The columns of runtimes tell what becomes of the code of the leftmost generator that works: it is compiled with that
runtime, and the generated client calls each method over a unix socket, with a value in each field. There, "works" means
that the same message comes back.

%[1]s
## ttrpc

Each line is something that happens to a server or a client. The columns are ttrpc alone at each version, and the
library of this project, ` + "`ttrpcx`" + `, on the version above the column. Codes are gRPC's; "no code" is an error
without a status. "no answer" and "waits" mean 10 s and more. Later calls are those on the same connection.

%[2]s`,
}

var japanese = language{
	feature:   func(f feature) string { return f.ja },
	behaviour: func(r behaviourRow) string { return r.ja },
	phrase:    translate,
	separator: "。",
	generator: "生成器", runtime: "ランタイム", library: "`ttrpcx` +",
	text: `# protobuf と ttrpc のどこまでが動くか

このページの内容はすべて、テストが Linux で実際に生成し、コンパイルし、呼び出して確かめたものです。表の中身は、テストが見た結果をそのまま書き出しています。

English: [support.md](support.md)

次のコマンドで両方のページを書き直します。` + "`-update`" + ` を付けなければ、見た結果と違うセルがあるときに失敗します：` + "`cd docs && go test ./support -update`" + `

ほかのバージョンも、コマンド 1 つで調べられます。%[3]s

## protobuf

行は .proto ファイルの機能です。どの行にも、その機能を使うサービスがあります。生成器の列は、そのバージョンの protoc-gen-go-ttrpc を ` + "`buf.gen.yaml`" + ` の protoc-gen-go と並べて buf で動かした結果です。動いたもののうち左端の生成器と違うコードを書いたときは、「コードが異なる」と書きます。

ランタイムの列は、動いたもののうち左端の生成器のコードをそのランタイムでコンパイルし、生成されたクライアントから、全フィールドに値を入れて各メソッドを unix ソケット越しに呼び出した結果です。この列の「動く」は、エンコードとデコードを経て同じメッセージが返ってきたことを表します。

%[1]s
## ttrpc

行はサーバーまたはクライアントに起きることです。列は、各バージョンの ttrpc だけの場合と、見出しのバージョンにこのプロジェクトのライブラリー ` + "`ttrpcx`" + ` を加えた場合です。コードは gRPC のもので、「コードなし」はステータスを持たないエラーです。「応答なし」と「待たされる」は 10 秒以上を、「以後の呼び出し」は同じ接続での呼び出しを表します。

%[2]s`,
}

// inJapanese has all phrases, and parts of phrases beside what is between backquotes.
var inJapanese = map[string]string{
	": ":                          "：",
	"works":                       "動く",
	"fails: ":                     "失敗：",
	"not generated":               "生成できない",
	"compiles":                    "コンパイルできる",
	"does not compile: ":          "コンパイルできない：",
	"with the warning: ":          "警告：",
	"the code differs":            "コードが異なる",
	"comments are left out":       "コメントは出力されない",
	"the deprecation is left out": "非推奨の印は出力されない",

	"arrives":         "届く",
	"does not arrive": "届かない",
	"an answer":       "応答あり",
	"no answer":       "応答なし",
	", no code":       "（コードなし）",

	"later calls work":                   "以後の呼び出しは動く",
	"later calls fail":                   "以後の呼び出しは失敗する",
	"later calls get no answer":          "以後の呼び出しに応答がない",
	"the handler's context ends":         "ハンドラーのコンテキストが終わる",
	"no message is lost":                 "メッセージは失われない",
	"messages are lost without an error": "エラーなしにメッセージが失われる",
	"the stream ends with ":              "ストリームの終わりは ",
	"the stream ends with no answer":     "ストリームは終わらない",
	"the server can send them":           "サーバーは送り終える",
	"the client can send them":           "クライアントは送り終える",
	"the client cannot send: ":           "クライアントは送れない：",
	"the server waits":                   "サーバーが待たされる",
	"the client waits":                   "クライアントが待たされる",

	"the handler's context lasts until the connection closes": "ハンドラーのコンテキストは接続が閉じるまで続く",
	"the handler runs on after the connection has closed":     "ハンドラーのコンテキストは接続が閉じても続く",

	"the server waits for the call":         "サーバーは呼び出しの終わりを待つ",
	"the server does not wait for the call": "サーバーは呼び出しの終わりを待たない",
	"the call gets an answer":               "呼び出しは応答を得る",
	"the call gets no answer":               "呼び出しは応答を得ない",
	"the call gets ":                        "呼び出しの結果は ",
	"the caller gets ":                      "呼び出し側が得るのは ",
	"the process lives":                     "プロセスは動き続ける",
	"the process dies":                      "プロセスが落ちる",
	"the connection is closed":              "接続が閉じる",
	"the connection stays open":             "接続は開いたまま",
}

func translate(phrase string) (string, error) {
	parts := strings.Split(phrase, "`")
	for i := 0; i < len(parts); i += 2 { // what is outside backquotes
		if ja, ok := inJapanese[parts[i]]; ok {
			parts[i] = ja
		} else if parts[i] != "" {
			return "", fmt.Errorf("there is no Japanese for %q", parts[i])
		}
	}
	return strings.Join(parts, "`"), nil
}

func (p page) render(l language) (string, error) {
	head := []string{""}
	for _, v := range p.generators {
		head = append(head, l.generator+" "+v)
	}
	for _, v := range p.runtimes {
		head = append(head, l.runtime+" "+v)
	}
	protobuf := [][]string{head}
	for _, r := range p.rows {
		line, err := l.line(l.feature(r.feature), r.cells)
		if err != nil {
			return "", err
		}
		protobuf = append(protobuf, line)
	}

	head = []string{""}
	for _, v := range p.runtimes {
		head = append(head, "ttrpc "+v)
	}
	ttrpc := [][]string{append(head, l.library+" "+p.library)}
	for _, r := range behaviourRows {
		var cells []cell
		for _, column := range p.behaviours {
			c, ok := column[r.name]
			if !ok {
				return "", fmt.Errorf("no program has seen %q", r.name)
			}
			cells = append(cells, c)
		}
		line, err := l.line(l.behaviour(r), cells)
		if err != nil {
			return "", err
		}
		ttrpc = append(ttrpc, line)
	}
	others := fmt.Sprintf("`cd docs && go test ./support -update -generators %s -runtimes %s`",
		strings.Join(p.generators, ","), strings.Join(p.runtimes, ","))
	return fmt.Sprintf(l.text, table(protobuf), table(ttrpc), others), nil
}

func (l language) line(title string, cells []cell) ([]string, error) {
	line := []string{title}
	for _, c := range cells {
		c = slices.Clone(c)
		for i, phrase := range c {
			var err error
			if c[i], err = l.phrase(phrase); err != nil {
				return nil, err
			}
		}
		line = append(line, strings.Join(c, l.separator))
	}
	return line, nil
}

// table returns a table in Markdown.
func table(lines [][]string) string {
	var b strings.Builder
	for i, line := range lines {
		for j, c := range line {
			line[j] = strings.ReplaceAll(c, "|", `\|`)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(line)))
		}
	}
	return b.String()
}
