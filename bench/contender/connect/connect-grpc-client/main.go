// Connect-grpc-client is a connect-go client that speaks gRPC.
package main

import (
	"connectrpc.com/connect"

	"example.com/ttrpc-starter/bench/contender/connect/caller"
	"example.com/ttrpc-starter/bench/internal/client"
)

func main() { client.Main(caller.Dial(connect.WithGRPC())) }
