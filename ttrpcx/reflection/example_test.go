package reflection_test

import (
	"fmt"
	"log"
	"maps"
	"slices"

	"github.com/containerd/ttrpc"

	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/reflection"
)

// Without ttrpcx.NewServer, register the reflection services with the ttrpc server, and pass them to Listen.
func ExampleServices() {
	server, err := ttrpc.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	testv1.RegisterTestService(server, testservice.Service{})
	services, err := reflection.Services(reflection.Options{Services: []string{"test.v1.Test"}})
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		server.RegisterService(name, services[name])
		fmt.Println(name)
	}
	options := ttrpcx.ServerOptions{Address: "unix:///run/app/app.sock", Services: services} // for ttrpcx.Listen
	fmt.Println(options.Validate())
	// Output:
	// grpc.reflection.v1.ServerReflection
	// grpc.reflection.v1alpha.ServerReflection
	// <nil>
}
