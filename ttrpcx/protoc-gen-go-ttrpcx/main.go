// Protoc-gen-go-ttrpcx is a plugin of protoc and buf. For each .proto file with services it writes NAME_ttrpcx.pb.go,
// with which the services' streams run inside interceptors and carry metadata and deadlines. That file uses what
// protoc-gen-go and protoc-gen-go-ttrpc write into the same package, so all three need the same parameters.
//
// The parameters are those of all Go plugins, such as paths=source_relative, and that of protoc-gen-go-ttrpc:
// prefix=TEXT puts a text in front of each service's Go name.
package main

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"text/template"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	var prefix string
	protogen.Options{ParamFunc: func(name, value string) error {
		if name != "prefix" {
			return fmt.Errorf("unknown parameter %q: want prefix or a parameter of all Go plugins, such as paths", name)
		}
		prefix = value
		return nil
	}}.Run(func(plugin *protogen.Plugin) error {
		plugin.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL |
			pluginpb.CodeGeneratorResponse_FEATURE_SUPPORTS_EDITIONS)
		plugin.SupportedEditionsMinimum = descriptorpb.Edition_EDITION_PROTO2
		plugin.SupportedEditionsMaximum = descriptorpb.Edition_EDITION_2024
		return generateAll(plugin, prefix)
	})
}

func generateAll(plugin *protogen.Plugin, prefix string) error {
	packages := map[protogen.GoImportPath][]*protogen.File{}
	for _, file := range plugin.Files {
		packages[file.GoImportPath] = append(packages[file.GoImportPath], file)
		for _, s := range file.Services {
			s.GoName = prefix + s.GoName // as protoc-gen-go-ttrpc does it
		}
	}
	for _, file := range plugin.Files {
		if !file.Generate || len(file.Services) == 0 {
			continue
		}
		if err := checkNames(packages[file.GoImportPath]); err != nil {
			return err
		}
		out := plugin.NewGeneratedFile(file.GeneratedFilenamePrefix+"_ttrpcx.pb.go", file.GoImportPath)
		if err := generate(out, file); err != nil {
			return fmt.Errorf("%s: %w", file.Desc.Path(), err)
		}
	}
	return nil
}

//go:embed file.tmpl
var fileTemplate string

func generate(out *protogen.GeneratedFile, file *protogen.File) error {
	t, err := template.New("").Funcs(template.FuncMap{
		"context":    func() string { return out.QualifiedGoIdent(protogen.GoImportPath("context").Ident("Context")) },
		"deprecated": deprecated,
		"services":   services,
		"ttrpc": func(name string) string {
			return out.QualifiedGoIdent(protogen.GoImportPath("github.com/containerd/ttrpc").Ident(name))
		},
		"type": func(m *protogen.Message) string { return out.QualifiedGoIdent(m.GoIdent) },
	}).Parse(fileTemplate)
	if err != nil {
		return err
	}
	return t.Execute(out, file)
}

// service is a service with the names that protoc-gen-go-ttrpc uses in what it writes for it.
type service struct {
	*protogen.Service
	Unary, Streams []*protogen.Method
	Local          string // what names that are not exported begin with
	Client         string // the client's interface
}

func services(file *protogen.File) (all []service) {
	for _, s := range file.Services {
		one := service{Service: s, Local: strings.ToLower(s.GoName), Client: s.GoName + "Service"}
		for _, m := range s.Methods {
			if m.Desc.IsStreamingClient() || m.Desc.IsStreamingServer() {
				one.Streams, one.Client = append(one.Streams, m), s.GoName+"Client"
			} else {
				one.Unary = append(one.Unary, m)
			}
		}
		all = append(all, one)
	}
	return all
}

// deprecated returns what a comment says about d if d is deprecated.
func deprecated(d protoreflect.Descriptor) string {
	if options, ok := d.Options().(interface{ GetDeprecated() bool }); !ok || !options.GetDeprecated() {
		return ""
	}
	return "Deprecated: Marked as deprecated in " + d.ParentFile().Path() + "."
}

// checkNames returns an error if a name that is written here is also another's in the Go package. The compiler reports
// clashes within what the other plugins write.
func checkNames(files []*protogen.File) error {
	owners := map[string]protoreflect.Descriptor{}
	for _, file := range files {
		for _, m := range file.Messages {
			owners[m.GoIdent.GoName] = m.Desc
		}
		for _, e := range file.Enums {
			owners[e.GoIdent.GoName] = e.Desc
		}
		for _, s := range services(file) {
			owners[s.GoName+"Service"], owners[s.Client] = s.Desc, s.Desc
		}
	}
	var errs []error
	take := func(name string, d protoreflect.Descriptor) {
		if owner, ok := owners[name]; ok {
			errs = append(errs, fmt.Errorf("%s: %s makes the Go name %s, which %s (%s) makes, too: rename one of them",
				position(d), d.FullName(), name, owner.FullName(), position(owner)))
		}
		owners[name] = d
	}
	for _, file := range files {
		for _, s := range file.Services {
			take("Handle"+s.GoName, s.Desc)
			take("Call"+s.GoName, s.Desc)
			for _, m := range s.Methods {
				take(s.GoName+"_"+m.GoName+"_FullMethod", m.Desc)
			}
		}
	}
	return errors.Join(errs...)
}

// position is where d stands in its .proto file.
func position(d protoreflect.Descriptor) string {
	location := d.ParentFile().SourceLocations().ByDescriptor(d)
	return fmt.Sprintf("%s:%d", d.ParentFile().Path(), location.StartLine+1)
}
