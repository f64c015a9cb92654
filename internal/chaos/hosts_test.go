package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/internal/testenv"
)

// stopHost stops the host in order, and records its output and what it left.
func (w *world) stopHost() {
	before := len(w.host.readLog())
	s := Stop{Started: w.host.started, Begin: time.Now()}
	if err := w.host.stop(); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			w.t.Fatalf("an orderly stop: %v", err)
		}
		s.Code = exit.ExitCode()
	}
	s.End, s.Output = time.Now(), w.host.readLog()[before:]
	if w.host.store != "" {
		s.Unrecorded = w.unrecorded()
	}
	if s.Code != 0 || len(s.Unrecorded) > 0 {
		w.t.Logf("the host stopped with exit code %d and left %d outcomes unrecorded; it said:\n%s", s.Code, len(s.Unrecorded), s.Output)
	}
	w.stops = append(w.stops, s)
}

// unrecorded returns the commands that the host's last process began and whose outcome isn't in
// the ledger's file. It reads a copy: reading the original could write to a full disk and would
// empty the write-ahead log.
func (w *world) unrecorded() []string {
	folder := w.t.TempDir()
	for _, part := range []string{"", "-wal"} {
		text, err := os.ReadFile(w.host.store + part)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, "ledger.db"+part), text, 0o600)
		}
		if err != nil && (part == "" || !errors.Is(err, os.ErrNotExist)) {
			w.t.Fatalf("copying the ledger: %v", err)
		}
	}
	return ledgerRows(w.t, filepath.Join(folder, "ledger.db"), ledger.Writing, w.host.started)
}

// readLog returns everything that the host has logged.
func (h *host) readLog() string {
	text, err := os.ReadFile(h.log.Name())
	if err != nil {
		h.t.Errorf("reading the host's log: %v", err)
	}
	return string(text)
}

// secondHost starts a second host on the same store and queues, as may happen by mistake, and
// stops it after a while.
var secondHost = fault{"a second host on the same store", func(ctx context.Context, w *world, _ *Fault) {
	w.until("the host is ready", w.host.ready)
	two := w.host.newSecondHost()
	defer two.log.Close()
	s := SecondHost{Name: "second", Begin: time.Now(), First: fmt.Sprintf("process %d", w.host.cmd.Process.Pid)}
	two.start()
	w.until("the second host says how it is", func() bool {
		select {
		case <-two.ended:
			return true
		default:
			return two.readiness() != ""
		}
	})
	pause(ctx, 3*time.Second)
	readiness := two.readiness()
	_ = two.stop() // it may have ended
	s.End, s.Output = time.Now(), two.readLog()+readiness
	w.secondHosts = append(w.secondHosts, s)
}}

// newSecondHost returns a host with another name that differs from h only in its listeners.
func (h *host) newSecondHost() *host {
	two := &host{t: h.t, plan: h.plan, bin: h.bin, store: h.store, file: strings.TrimSuffix(h.file, ".toml") + "-second.toml"}
	text, err := os.ReadFile(h.file)
	if err != nil {
		h.t.Fatal(err)
	}
	changes := []string{`name = "chaos"`, `name = "second"`}
	for _, port := range []struct {
		of  int
		own *int
	}{{h.admin, &two.admin}, {h.devices, &two.devices}} {
		if *port.own, err = testenv.FreePort(); err != nil {
			h.t.Fatal(err)
		}
		changes = append(changes, fmt.Sprintf("127.0.0.1:%d", port.of), fmt.Sprintf("127.0.0.1:%d", *port.own))
	}
	if err := os.WriteFile(two.file, []byte(strings.NewReplacer(changes...).Replace(string(text))), 0o600); err != nil {
		h.t.Fatal(err)
	}
	if two.log, err = os.Create(strings.TrimSuffix(two.file, ".toml") + ".log"); err != nil {
		h.t.Fatal(err)
	}
	return two
}
