package support

import (
	"fmt"
	"slices"
	"strings"
	"text/template"
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

	template                    string // of the page
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
	template: "page.md.tmpl",
}

var japanese = language{
	feature:   func(f feature) string { return f.ja },
	behaviour: func(r behaviourRow) string { return r.ja },
	phrase:    translate,
	separator: "。",
	generator: "生成器", runtime: "ランタイム", library: "`ttrpcx` +",
	template: "page.ja.md.tmpl",
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
	t, err := template.ParseFiles(l.template)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, map[string]string{"Protobuf": table(protobuf), "TTRPC": table(ttrpc), "Others": others})
	return b.String(), err
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
