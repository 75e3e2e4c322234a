package heapfloor_test

import (
	"fmt"
	"log"

	"example.com/ttrpc-starter/ttrpcx/heapfloor"
)

// A server that may use 64 MiB of heap collects garbage less often.
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
	fmt.Println("the heap grows to about", floor.String())
	// Output: the heap grows to about 64MiB
}
