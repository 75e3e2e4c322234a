package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// What a connection of HTTP/2 without a call takes of ttgate, in KiB: measured, as docs/scaling.md says.
const connectionKiB = 24

const (
	clientsPerNode = 10
	subset         = 20 // nodes that each client knows
	endpointBytes  = 60 // of an address in xDS or an EndpointSlice, with what is around it
)

// calculate prints what grows with the number of nodes. Each client is a process with one connection to each node that
// it knows.
func calculate(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "nodes\tclients\teach client knows\tconnections of a client\tof a node\tall\t"+
		"memory of a gateway\tsent when a node changes\t")
	for _, n := range []int{10, 1000, 100_000} {
		clients := n * clientsPerNode
		for _, known := range []int{n, subset} {
			if known > n {
				continue
			}
			perNode := clients * known / n
			name := "all nodes"
			if known != n {
				name = fmt.Sprintf("%d nodes", known)
			}
			// With all, every client is told; with subsets, those that know the node.
			fmt.Fprintf(table, "%d\t%d\t%s\t%d\t%d\t%d\t%s\t%s\t\n", n, clients, name, known, perNode, clients*known,
				amount(perNode*connectionKiB<<10), amount(perNode*endpointBytes))
		}
	}
	return table.Flush()
}

// amount returns a number of bytes with two digits or three.
func amount(n int) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v := float64(n)
	for ; v >= 1000 && len(units) > 1; units = units[1:] {
		v /= 1024
	}
	return fmt.Sprintf("%.3g %s", v, units[0])
}
