// Command withbroker runs a command with one private RabbitMQ node, which every test process in it
// shares:
//
//	go run ./internal/testenv/withbroker go test ./...
//
// If PENTROUGH_TEST_AMQP_URL already names a broker, it only runs the command. Its exit code is
// the command's.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/pentrough/pentrough/internal/testenv"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: withbroker COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "withbroker:", err)
	}
	os.Exit(code)
}

func run(args []string) (code int, err error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if os.Getenv(testenv.AMQPURL) == "" {
		node, startErr := testenv.Start()
		if startErr != nil {
			return 1, startErr
		}
		defer func() { err = errors.Join(err, node.Close()) }()
		cmd.Env = append(os.Environ(), testenv.AMQPURL+"="+node.URL(), testenv.NodeFolder+"="+node.Folder)
	}
	// A signal from the terminal reaches the command too. This process continues until the command
	// has ended, and then stops the node.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err = cmd.Start(); err != nil {
		return 1, fmt.Errorf("starting %s: %w", args[0], err)
	}
	go func() {
		for s := range signals {
			if s == syscall.SIGTERM {
				// The command may have ended already.
				_ = cmd.Process.Signal(s)
			}
		}
	}()
	err = cmd.Wait()
	signal.Stop(signals)
	close(signals)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}
