package heapfloor_test

import (
	"fmt"
	"log"

	"example.com/ttrpc-starter/ttrpcx/heapfloor"
)

// A server whose heap may grow to 64 MiB, when that makes it faster.
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
	fmt.Println("the heap may grow to", floor.String())
	// Output: the heap may grow to 64MiB
}
