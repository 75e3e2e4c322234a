// Server is like the starter's server, with the tests' service. Its tests do not depend on the example service.
//
// With -record FILE, it adds a line to the file for each text that starts with "#": what comes before the first space.
// The answer to "slow" takes half a second, also if the call has ended.
package main

import (
	"context"
	"io"
	"os"
	"strings"
	"time"

	"example.com/ttrpc-starter/internal/cli"
	"example.com/ttrpc-starter/internal/testservice"
	testv1 "example.com/ttrpc-starter/internal/testservice/gen/test/v1"
	"example.com/ttrpc-starter/ttrpcx"
)

func main() { cli.Main("server", run) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	flags := cli.NewFlagSet("server", "Serves the tests' service over ttrpc until SIGINT or SIGTERM.")
	record := flags.String("record", os.DevNull, "`file` to which the texts that arrive are added")
	options, err := cli.ParseServer(flags, args, stdout, stderr)
	if err != nil {
		return err
	}
	records, err := os.OpenFile(*record, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	server, err := ttrpcx.NewServer(options)
	if err != nil {
		return err
	}
	testv1.HandleTest(server, testservice.Service{
		Begin: func(ctx context.Context, method string) error {
			options.Logger.InfoContext(ctx, strings.ToLower(method)+" call")
			return nil
		},
		Keep: ttrpcx.Reserve,
		Text: func(_ context.Context, text string) (string, error) {
			if strings.HasPrefix(text, "#") {
				name, _, _ := strings.Cut(text, " ")
				_, err := records.WriteString(name + "\n")
				return text, err
			}
			switch text {
			case "slow":
				time.Sleep(500 * time.Millisecond)
			case "stubborn": // does not end with its call
				<-ctx.Done()
			}
			return text, nil
		},
	})
	return server.ListenAndServe(ctx)
}
