package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

// trace counts the host's calls that write, sync or send, and kills the host at one of them.
type trace struct {
	t     *testing.T
	cmd   *exec.Cmd
	input io.Closer
	said  *bufio.Scanner
}

// death is what killat reports; see there.
type death struct {
	Call, On string
	Time     time.Time
}

// buildKillat builds killat in the folder and returns its path.
func buildKillat(t *testing.T, folder string) string {
	path := filepath.Join(folder, "killat")
	if out, err := exec.Command("go", "build", "-o", path, "./killat").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return path
}

// killAtCall starts a trace that kills the host at its nth call from now on.
func (h *host) killAtCall(killat string, nth int) *trace {
	tr := &trace{t: h.t, cmd: exec.Command(killat, strconv.Itoa(h.cmd.Process.Pid), strconv.Itoa(nth))}
	tr.cmd.Stderr = os.Stderr
	input, err := tr.cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	output, err := tr.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := tr.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	tr.input, tr.said = input, bufio.NewScanner(output)
	if !tr.said.Scan() {
		h.t.Fatalf("killat can't trace the host; that takes the right to (ptrace_scope): %v", tr.said.Err())
	}
	return tr
}

// waitForDeath waits until the host is killed. It returns false if the trace ended before.
func (tr *trace) waitForDeath() (d death, ok bool) {
	if !tr.said.Scan() {
		return d, false
	}
	if err := json.Unmarshal(tr.said.Bytes(), &d); err != nil {
		tr.t.Errorf("killat said %q: %v", tr.said.Text(), err)
	}
	return d, true
}

// close ends the trace.
func (tr *trace) close() {
	tr.input.Close()
	if err := tr.cmd.Wait(); err != nil {
		tr.t.Errorf("killat: %v", err)
	}
}

// writeKill kills the host at one of its next calls that write, sync or send.
var writeKill = fault{"host killed at a write", func(ctx context.Context, w *world, f *Fault) {
	tr := w.host.killAtCall(buildKillat(w.t, filepath.Dir(w.host.bin)), 1+w.rng.IntN(500))
	late := time.AfterFunc(await.Patience, func() { tr.input.Close() })
	d, ok := tr.waitForDeath()
	late.Stop()
	tr.close()
	if ok {
		f.Name = fmt.Sprintf("host killed at a %s,", w.describeCall(d.Call, d.On))
	} else {
		w.t.Errorf("waited %s until the host writes; it says %q", await.Patience, w.host.readiness())
	}
	w.killHost(f) // it is dead, and waited for
	pause(ctx, time.Duration(w.rng.IntN(1000))*time.Millisecond)
	w.host.start()
}}
