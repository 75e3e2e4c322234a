package main

import "testing"

func TestServiceNames(t *testing.T) {
	server := `package main

import "log/slog"

func main() { count := 1; slog.Info("", "", count); _ = example{} }
`
	from := project{files: map[string]file{
		"server/main.go": {content: []byte(server)}, "server/example.go": {content: []byte("package main")},
		"client/print.go": {content: []byte("package main")},
	}}
	for fullName, want := range map[string]service{
		"todo.v1.Todo":         {"todo.v1", "Todo", "todo", "todo"},
		"a.b_c.v2beta1.TaskX":  {"a.b_c.v2beta1", "TaskX", "taskX", "taskx"},
		"http.v1.HTTPProxy2":   {"http.v1", "HTTPProxy2", "httpProxy2", "httpproxy2"},
		"acme.v1.Example":      {"acme.v1", "Example", "example", "example"},
		"example.v1.Example":   {"example.v1", "Example", "example", "example"},
		"users.v1.UserWindows": {"users.v1", "UserWindows", "userWindows", "userwindows"}, // not user_windows.go
		"a.v1.Type":            {"a.v1", "Type", "typeService", "type"},                   // a keyword
		"a.v1.String":          {"a.v1", "String", "stringService", "string"},             // a type of Go's
		"a.v1.Slog":            {"a.v1", "Slog", "slogService", "slog"},                   // a package
		"a.v1.Count":           {"a.v1", "Count", "countService", "count"},                // a variable
		"a.v1.Main":            {"a.v1", "Main", "mainService", "mainservice"},            // a file
		"a.v1.Print":           {"a.v1", "Print", "printService", "printservice"},         // a file, and a function
	} {
		if got, err := newService(from, fullName); err != nil || got != want {
			t.Errorf("%s is %q, %v, want %q", fullName, got, err, want)
		}
	}
}

func TestRenameModule(t *testing.T) {
	from := project{module: "example.com/old-name"}
	n := names{module: "github.com/you/old-name-2", app: "old-name-2"}
	for text, want := range map[string]string{
		"example.com/old-name, example.com/old-name/gen": "github.com/you/old-name-2, github.com/you/old-name-2/gen",
		`"example.com/old-name/ttrpcx".`:                 `"github.com/you/old-name-2/ttrpcx".`,
		"at example.com/old-name.":                       "at github.com/you/old-name-2.",
		"example.com/old-name-tools":                     "example.com/old-name-2-tools",
		"example.com/old-name.v2":                        "example.com/old-name-2.v2",
		"https://www.example.com/old-name":               "https://www.example.com/old-name-2",
		"/run/old-name/old-name.sock":                    "/run/old-name-2/old-name-2.sock",
	} {
		if got := n.renameModule(from, text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestRenameService(t *testing.T) {
	n := names{service: service{"todo.v2", "Todo", "todoService", "todo"}}
	text := `// example implements the service, for example.v1.Example.
type example struct{} // an example in example.go

var _ examplev1.ExampleService = example{} // "example/v1"

func f() { s := "example" + "example.v1.Example" }
`
	want := `// todoService implements the service, for todo.v2.Todo.
type todoService struct{} // an example in todo.go

var _ todov2.TodoService = todoService{} // "todo/v2"

func f() { s := "example" + "todo.v2.Todo" }
`
	if got := n.renameService("server/example.go", text); got != want {
		t.Errorf("the text becomes %s, want %s", got, want)
	}
}
