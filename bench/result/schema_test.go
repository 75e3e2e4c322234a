package result_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"example.com/ttrpc-starter/bench/result"
)

var update = flag.Bool("update", false, "write the schema again")

const (
	schemaFile  = "../../docs/bench/schema.json"
	resultsFile = "../../docs/bench/results.json"
)

// TestSchema holds the schema to the types.
func TestSchema(t *testing.T) {
	reflector := &jsonschema.Reflector{Anonymous: true}
	if err := reflector.AddGoComments("example.com/ttrpc-starter/bench/result", "./"); err != nil {
		t.Fatal(err)
	}
	want, err := json.MarshalIndent(reflector.Reflect(&result.Run{}), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not of these types: run go test -C bench ./result -update", schemaFile)
	}
}

func TestValidation(t *testing.T) {
	schema, err := validator.NewCompiler().Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	good, err := json.Marshal(&result.Run{
		Suite: "quick", Started: time.Now(), Modules: []result.Module{}, Contenders: []result.Contender{},
		Loads: []result.Load{{
			Case: result.Case{Transport: "unix", Kind: "unary"}, Contender: "ours",
			Rounds: []result.Round{{Round: 1, Error: "killed"}},
		}},
		Footprints: []result.Footprint{}, Idle: []result.Connections{}, InFlight: []result.InFlight{},
	})
	if err != nil {
		t.Fatal(err)
	}
	validate := func(content string) error {
		value, err := validator.UnmarshalJSON(strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(value)
	}
	if err := validate(string(good)); err != nil {
		t.Errorf("a run does not validate: %v", err)
	}
	for name, edit := range map[string][2]string{
		"unknown suite":     {`"suite":"quick"`, `"suite":"slow"`},
		"unknown transport": {`"transport":"unix"`, `"transport":"pigeon"`},
		"missing field":     {`"seed":0,`, ``},
		"field too many":    {`"seed":0,`, `"seed":0,"sown":1,`},
		"wrong type":        {`"seed":0,`, `"seed":"none",`},
		"no list":           {`"idle":[]`, `"idle":null`},
	} {
		bad := strings.Replace(string(good), edit[0], edit[1], 1)
		if bad == string(good) {
			t.Errorf("%s: %s is not in a run", name, edit[0])
		}
		if validate(bad) == nil {
			t.Errorf("%s: it validates", name)
		}
	}
	published, err := os.ReadFile(resultsFile)
	if err != nil {
		t.Skip("no result is published")
	}
	if err := validate(string(published)); err != nil {
		t.Errorf("%s does not validate: %v", resultsFile, err)
	}
}
