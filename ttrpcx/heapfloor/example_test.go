package heapfloor_test

import (
	"fmt"
	"log"

	"example.com/ttrpc-starter/ttrpcx/heapfloor"
)

// A server that may use 64 MiB collects garbage less often.
func ExampleSet() {
	var floor heapfloor.Size // also a flag.Value
	if err := floor.Set("64MiB"); err != nil {
		log.Fatal(err)
	}
	restore, err := heapfloor.Set(floor)
	if err != nil {
		log.Fatal(err)
	}
	defer restore()
	fmt.Println("collecting from", floor.String())
	// Output: collecting from 64MiB
}
