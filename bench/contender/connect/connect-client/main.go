// Connect-client is a connect-go client that speaks connect's own protocol.
package main

import (
	"example.com/ttrpc-starter/bench/contender/connect/caller"
	"example.com/ttrpc-starter/bench/internal/client"
)

func main() { client.Main(caller.Dial()) }
