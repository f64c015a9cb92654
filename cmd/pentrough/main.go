// Command pentrough moves messages between message brokers and raw-TCP devices. One TOML file
// configures it.
//
//	pentrough run              runs the embedded quickstart
//	pentrough init             writes an annotated configuration
//	pentrough run -c FILE      runs a configuration
//
// Each verb has its own file; plugins.go lists the plugins of this build.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/internal/redact"
)

// The exit codes of every verb. A supervisor restarts the host after exitForced and exitUnclean,
// but not after exitFailed.
const (
	exitFailed  = 1 // the host didn't start, or the verb failed
	exitForced  = 2 // a second signal ended the host during its stop
	exitUnclean = 3 // the stop reached its deadline or lost something
)

func main() {
	os.Exit(execute(newRoot(), os.Args[1:]))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "pentrough",
		Short: "Move messages between brokers and raw-TCP devices",
		Long: `Pentrough moves messages between message brokers and raw-TCP devices. One TOML file configures it.

"pentrough run" without a file runs an embedded quickstart, which needs no other software.
"pentrough init" writes an annotated configuration to start from.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return advise(err, "%s --help lists the flags", cmd.CommandPath())
	})
	root.AddCommand(
		newRun(), newValidate(), newTest(), newGraph(), newInit(), newSend(), newListen(), newDevices(), newLedger(), newPoison(), newProtocols(), newPlugins(), newPlugin(), newBuild(), newSchema(), newVersion(), newRecord(), newReplay(),
	)
	completeShells(root)
	return root
}

// completeShells adds cobra's verb "completion" and makes it refuse an unknown shell.
func completeShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	completion, _, err := root.Find([]string{"completion"})
	if err != nil {
		panic(err)
	}
	var shells []string
	for _, c := range completion.Commands() {
		shells = append(shells, c.Name())
	}
	completion.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return advise(fmt.Errorf("there is no completion for %q", args[0]), "name one of %s: pentrough completion bash", strings.Join(shells, ", "))
	}
	completion.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// execute runs a command line, reports its error on standard error and returns the exit code.
func execute(root *cobra.Command, args []string) int {
	root.SetArgs(args)
	// All output of a verb passes through these writers, because much of it comes from outside and
	// some of it has secrets.
	root.SetOut(printable.NewWriter(root.OutOrStdout()))
	root.SetErr(redact.NewWriter(printable.NewWriter(root.ErrOrStderr()), new(redact.Set)))
	err := root.Execute()
	if err == nil {
		return 0
	}
	code := exitFailed
	if e, ok := errors.AsType[*codedError](err); ok {
		code = e.code
	}
	if _, logged := errors.AsType[*loggedError](err); logged {
		return code
	}
	fmt.Fprintln(root.ErrOrStderr(), "pentrough:", err)
	next := "pentrough --help lists the verbs"
	if a, ok := errors.AsType[*advisedError](err); ok {
		next = a.next
	}
	for line := range strings.Lines(next) {
		fmt.Fprintln(root.ErrOrStderr(), "  next:", strings.TrimSuffix(line, "\n"))
	}
	return code
}

// loggedError is an error that is already in the log.
type loggedError struct{ error }

func (e *loggedError) Unwrap() error { return e.error }

// advisedError is an error with advice on what to do next.
type advisedError struct {
	err  error
	next string
}

func (e *advisedError) Error() string { return e.err.Error() }
func (e *advisedError) Unwrap() error { return e.err }

// advise adds to an error what the reader should do next.
func advise(err error, format string, args ...any) error {
	return &advisedError{err: err, next: fmt.Sprintf(format, args...)}
}

// codedError is an error with an exit code other than exitFailed.
type codedError struct {
	err  error
	code int
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }
