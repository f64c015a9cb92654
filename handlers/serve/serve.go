// Package serve runs a handler as a process of its own: the package that is compiled into a host with `pentrough build` is, without a change, the plugin of
// `handler = { type = "process", command = [...] }`. All of the program is
//
//	package main
//
//	import (
//		_ "example.com/door"
//
//		"github.com/pentrough/pentrough/handlers/serve"
//	)
//
//	func main() { serve.Main("door") }
//
// The config that the host sends is held against the same struct, with the same messages, as the table in TOML of a handler that is compiled in; logging through
// the handler's logger goes to the host's log; a panic while a message is handled is that message's error, and retryable, as it is in a host. What only a host has
// isn't there, and the process refuses to start with a handler that asks for it: devices, a ledger, dead letters. Publishing beside what a message produces fails, metrics are
// registered with a registry that nobody reads, and there is no tracer.
//
// Standard input and output belong to the protocol (docs/process-protocol.md) from the start of Main: what the handler prints goes to standard error. SIGINT and SIGTERM
// are ignored as long as the host is there, which says itself when it is enough: by a drain, or by the end of standard input.
package serve

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/pentrough/pentrough/internal/plugin"
)

// Main runs the handler that was registered under a name, for the host at standard input and output, until the host has enough. It doesn't return.
func Main(name string) { os.Exit(run(name)) }

func run(name string) (status int) {
	if os.Getenv("PENTROUGH_PLUGIN") == "" && terminal(os.Stdin) {
		fmt.Fprintf(os.Stderr, "This is the handler %q as a plugin of Pentrough, which speaks with a host and not with people. In a host's configuration:\n\n  handler = { type = \"process\", command = [%q] }\n", name, os.Args[0])
		return 2
	}
	if os.Getenv("GOGC") == "" {
		// As in a host, the garbage collector of a small program would otherwise run dozens of times a second under load.
		untouched := make([]byte, ballast)
		defer runtime.KeepAlive(untouched)
	}
	in, out, err := standardFiles()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	// Unlike an ignored one, a signal that nobody looks at is nothing that programs inherit which the handler starts.
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, os.Interrupt, syscall.SIGTERM)
	s := newSession(name, plugin.Registered(), in, out)
	s.ending = func() { signal.Stop(unread) }
	if err := s.run(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// ballast is how much memory the garbage collector takes for live that isn't (decision 0011).
const ballast = 16 << 20

// terminal says whether a person is at the other end of a file, or nobody.
func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// discard is the logger until there is a host to log to.
var discard = slog.New(slog.DiscardHandler)
