package testenv

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

// Programs builds main packages and returns their folder. Its arguments are flags of go build, and
// folders below the module's root. Test processes that share a node share the programs.
func Programs(t testing.TB, args ...string) (folder string) {
	t.Helper()
	build := func(folder string) error {
		cmd := exec.Command("go", append([]string{"build", "-o", folder + string(filepath.Separator)}, args...)...)
		out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
		if err != nil {
			return fmt.Errorf("looking for the module's root: %w", err)
		}
		cmd.Dir = strings.TrimSpace(string(out))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	var err error
	if os.Getenv(NodeFolder) == "" {
		folder = t.TempDir()
		err = build(folder)
	} else {
		folder, err = sharedFile(notInName.ReplaceAllString("programs "+strings.Join(args, " "), "-"), build)
	}
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// Program is a program that runs next to a test and writes its output to a file.
type Program struct {
	Cmd *exec.Cmd
	// Ended is closed when the program has ended. From then on Err is valid.
	Ended chan struct{}
	Err   error

	log string
}

// Launch starts a program with additional environment variables, and writes its output to the file
// log in folder. The program is killed when the test ends.
func Launch(t testing.TB, folder, log string, env []string, name string, args ...string) *Program {
	t.Helper()
	out, err := os.Create(filepath.Join(folder, log))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := &Program{Cmd: exec.Command(name, args...), log: out.Name(), Ended: make(chan struct{})}
	p.Cmd.Env = append(os.Environ(), env...)
	p.Cmd.Stdout, p.Cmd.Stderr = out, out
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.Ended)
		p.Err = p.Cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.Cmd.Process.Kill() // it may have ended
		<-p.Ended
		if t.Failed() {
			t.Logf("%s:\n%s", log, p.Output(t))
		}
	})
	return p
}

// End sends a signal, if there is one, and waits for the program's end, which must be clean.
func (p *Program) End(t testing.TB, signal os.Signal) {
	t.Helper()
	if signal != nil {
		if err := p.Cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	await.Closed(t, filepath.Base(p.Cmd.Path)+" ends", p.Ended)
	if p.Err != nil {
		t.Errorf("%s: %v\n%s", p.Cmd.Path, p.Err, p.Output(t))
	}
}

// Says waits until the program has printed a text.
func (p *Program) Says(t testing.TB, text string) {
	t.Helper()
	await.That(t, fmt.Sprintf("%s prints %q", filepath.Base(p.Cmd.Path), text), func() (any, bool) {
		said := p.Output(t)
		return said, strings.Contains(said, text)
	})
}

// Output returns what the program has printed so far.
func (p *Program) Output(t testing.TB) string {
	t.Helper()
	out, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Port returns what FreePort does, as text.
func Port(t testing.TB) string {
	t.Helper()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

// client sends requests to hosts, which may be frozen.
var client = &http.Client{Timeout: 10 * time.Second}

// AwaitReady waits until the host with that admin port on 127.0.0.1 is ready. The test fails if
// ended is closed before.
func AwaitReady(t testing.TB, admin string, ended <-chan struct{}) {
	t.Helper()
	await.That(t, "the host is ready", func() (any, bool) {
		select {
		case <-ended:
			t.Fatal("the host ended before it was ready")
		default:
		}
		r, err := client.Get("http://127.0.0.1:" + admin + "/readyz")
		if err != nil {
			return err, false
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		return string(body), r.StatusCode == http.StatusOK
	})
}

// AwaitSessions waits until that many devices are connected to the host with that admin port. The
// test fails if ended is closed before.
func AwaitSessions(t testing.TB, admin string, devices int, ended <-chan struct{}) {
	t.Helper()
	await.That(t, fmt.Sprintf("%d devices are connected", devices), func() (any, bool) {
		select {
		case <-ended:
			t.Fatalf("the host ended before %d devices were connected", devices)
		default:
		}
		n := Metric(t, admin, "pentrough_device_sessions")
		return n, n == devices
	})
}

// Metric returns the sum of a host's metric over all labels, or 0 without a host.
func Metric(t testing.TB, admin, name string) int {
	t.Helper()
	r, err := client.Get("http://127.0.0.1:" + admin + "/metrics")
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, name); ok && rest != "" && (rest[0] == ' ' || rest[0] == '{') {
			n, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return int(sum)
}
