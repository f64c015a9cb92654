// Package serve runs a handler as a separate process. A handler's package that can be compiled
// into a host with `pentrough build` also works, unchanged, as the plugin of `handler = { type =
// "process", command = [...] }`. This is the whole program:
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
// The process checks the config from the host like the TOML table of a compiled-in handler, with
// the same struct and the same errors. The handler's logger writes to the host's log. If the
// handler panics, the message fails with a retryable error, as in a host.
//
// Some things exist only in a host: devices, the ledger and dead letters. The process refuses to
// start with a handler that needs them. A handler can publish only the messages that it returns.
// Its metrics aren't exported, and it has no tracer.
//
// Main uses standard input and output for the protocol (docs/process-protocol.md). If the handler
// prints something, it goes to standard error. The process ignores SIGINT and SIGTERM while the
// host runs. The host ends it with a drain, or by closing standard input.
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

// Main runs the handler that is registered under a name, for the host at standard input and
// output, until the host ends it. It doesn't return.
func Main(name string) { os.Exit(run(name)) }

func run(name string) (status int) {
	if os.Getenv("PENTROUGH_PLUGIN") == "" && isTerminal(os.Stdin) {
		fmt.Fprintf(os.Stderr, "This is the handler %q as a plugin of Pentrough. A host starts it, with this line in the host's configuration:\n\n  handler = { type = \"process\", command = [%q] }\n", name, os.Args[0])
		return 2
	}
	if os.Getenv("GOGC") == "" {
		// Without this, the garbage collector of a small program would run dozens of times a
		// second under load.
		untouched := make([]byte, ballast)
		defer runtime.KeepAlive(untouched)
	}
	in, out, err := standardFiles()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	// Catch the signals instead of ignoring them: programs that the handler starts would inherit
	// an ignored signal.
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

// ballast is the size of unused memory that makes the garbage collector run less often (decision
// 0011).
const ballast = 16 << 20

// isTerminal reports whether a file is a terminal or another character device.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// discard is the logger before the host's hello.
var discard = slog.New(slog.DiscardHandler)
