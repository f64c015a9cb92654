// Package script runs testdata in the language of testscript, with commands for a host that runs
// next to its script:
//
//	start run -c gateway.toml
//	eventually curl -sf http://127.0.0.1:$ADMIN_PORT/readyz
//	signal TERM
//	ended 0
package script

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// Run runs the scripts of a folder, each as a parallel test. The programs in the folder programs
// take precedence over others with the same names. commands has further commands for the scripts,
// in addition to those of this package.
//
// Each script has free ports of 127.0.0.1 in $DEVICES_PORT, $HTTP_PORT and $ADMIN_PORT, the go
// command's folders in $GO_CACHE and $GO_MODCACHE, and the repository in $REPOSITORY.
func Run(t *testing.T, folder, programs string, commands map[string]func(*testscript.TestScript, bool, []string)) {
	t.Helper()
	folders, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE", "GOMODCACHE", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	caches := strings.Fields(string(folders))
	all := map[string]func(*testscript.TestScript, bool, []string){
		"broker":     broker(t),
		"code":       code,
		"ended":      ended,
		"eventually": eventually,
		"grows":      grows,
		"signal":     sendSignal,
		"start":      start,
	}
	maps.Copy(all, commands)
	testscript.Run(t, testscript.Params{
		Dir:                 folder,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                all,
		Setup: func(e *testscript.Env) error {
			e.Values[hostKey{}] = &host{}
			e.Setenv("GO_CACHE", caches[0])
			e.Setenv("GO_MODCACHE", caches[1])
			e.Setenv("REPOSITORY", filepath.Dir(caches[2]))
			e.Setenv("GORACE", os.Getenv("GORACE"))
			// Debian's programs take precedence over others with the same names, such as a slow
			// wrapper of python3.
			own, others, _ := strings.Cut(e.Getenv("PATH"), string(os.PathListSeparator))
			e.Setenv("PATH", strings.Join([]string{programs, own, "/usr/bin", others}, string(os.PathListSeparator)))
			for _, name := range ports {
				port, err := testenv.FreePort()
				if err != nil {
					return err
				}
				e.Setenv(name, strconv.Itoa(port))
			}
			return nil
		},
	})
}

var ports = []string{"DEVICES_PORT", "HTTP_PORT", "ADMIN_PORT"}

// host is the one pentrough that a script runs in the background. Its output is in host.log.
type host struct {
	cmd *exec.Cmd
	log *os.File
}

type hostKey struct{}

// start runs pentrough in the background: start run -c gateway.toml.
func start(ts *testscript.TestScript, neg bool, args []string) {
	h := ts.Value(hostKey{}).(*host)
	if neg || h.cmd != nil {
		ts.Fatalf("usage: start ARGUMENT..., once until it ended")
	}
	var err error
	h.log, err = os.Create(ts.MkAbs("host.log"))
	ts.Check(err)
	h.cmd = exec.Command("/usr/bin/env", append([]string{"pentrough"}, args...)...)
	h.cmd.Dir, h.cmd.Stdout, h.cmd.Stderr = ts.MkAbs("."), h.log, h.log
	for _, name := range append([]string{"PATH", "HOME", "TMPDIR", "AMQP_URL", "REDIS_URL", "DEVICES", "SHUTDOWN", "GORACE", "API_KEY"}, ports...) {
		if value := ts.Getenv(name); value != "" {
			h.cmd.Env = append(h.cmd.Env, name+"="+value)
		}
	}
	ts.Check(h.cmd.Start())
	ts.Defer(func() {
		if h.cmd != nil {
			_ = h.cmd.Process.Kill() // it may have ended
			h.wait()
		}
	})
}

// wait waits for the host and returns its exit code.
func (h *host) wait() string {
	err := errors.Join(h.cmd.Wait(), h.log.Close())
	h.cmd = nil
	return exitCode(err)
}

// ended waits for the host's end and checks its exit code: ended 0.
func ended(ts *testscript.TestScript, neg bool, args []string) {
	h := ts.Value(hostKey{}).(*host)
	if neg || len(args) != 1 || h.cmd == nil {
		ts.Fatalf("usage: ended CODE, after start")
	}
	stuck := time.AfterFunc(await.Patience, func() { _ = h.cmd.Process.Signal(syscall.SIGQUIT) })
	got := h.wait()
	stuck.Stop()
	ts.Logf("%s", ts.ReadFile("host.log"))
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// sendSignal sends the host a signal: signal TERM.
func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	h := ts.Value(hostKey{}).(*host)
	signals := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL}
	if neg || len(args) != 1 || signals[args[0]] == nil || h.cmd == nil {
		ts.Fatalf("usage: signal INT|TERM|HUP|KILL, after start")
	}
	ts.Check(h.cmd.Process.Signal(signals[args[0]]))
}

// broker sets $AMQP_URL to a virtual host of the script's own.
func broker(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 0 {
			ts.Fatalf("usage: broker")
		}
		ts.Setenv("AMQP_URL", testenv.Broker(t).VHost(t))
	}
}

// code runs a program and checks its exit code: code 3 pentrough run ...
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARGUMENT...")
	}
	if got := exitCode(ts.Exec(args[1], args[2:]...)); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

func exitCode(err error) string {
	if err == nil {
		return "0"
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.Exited() {
		return strconv.Itoa(e.ExitCode())
	}
	return err.Error()
}

// eventually runs a program until it succeeds: eventually curl ...; with ! until it fails.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: [!] eventually PROGRAM ARGUMENT...")
	}
	poll(ts, fmt.Sprintf("%q", args), func() (string, bool) { // each call logs the output
		err := ts.Exec(args[0], args[1:]...)
		return exitCode(err), (err != nil) == neg
	})
}

// grows waits until a file that a background program writes matches: grows PATTERN FILE.
func grows(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: grows PATTERN FILE")
	}
	pattern, err := regexp.Compile(`(?m)` + args[0])
	ts.Check(err)
	poll(ts, fmt.Sprintf("%s in %s", args[0], args[1]), func() (string, bool) {
		content, err := os.ReadFile(ts.MkAbs(args[1]))
		if err != nil {
			return err.Error(), false
		}
		return string(content[max(0, len(content)-4<<10):]), pattern.Match(content)
	})
}

// poll waits as package await does, for a script instead of a test.
func poll(ts *testscript.TestScript, what string, look func() (state string, ok bool)) {
	pause := 10 * time.Millisecond
	for deadline := time.Now().Add(await.Patience); ; time.Sleep(pause) {
		looked := time.Now()
		state, ok := look()
		pause = await.Pause(pause, time.Since(looked))
		if ok {
			return
		}
		if time.Now().After(deadline) {
			if log, err := os.ReadFile(ts.MkAbs("host.log")); err == nil {
				ts.Logf("[host.log]\n%s", log)
			}
			ts.Fatalf("waited %s for %s; the last state: %s", await.Patience, what, state)
		}
	}
}
