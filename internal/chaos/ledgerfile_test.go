package chaos

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

// ledgerRemoved removes the ledger's file while the host runs and commands are held. Later it
// kills the host. Then only a file that the host has written anew has these commands.
var ledgerRemoved = fault{"ledger removed, host killed later", func(ctx context.Context, w *world, f *Fault) {
	back := w.disconnectHalf(f)
	pause(ctx, time.Second)
	if err := os.Remove(w.host.store); err != nil {
		w.t.Errorf("removing the ledger: %v", err)
	}
	w.awaitLedger(ctx)
	w.killHost(f)
	w.host.start()
	back()
	w.until("the host is ready", w.host.ready)
}}

// ledgerReplaced replaces the ledger by an older copy and moves the copy away again. That happens
// if someone restores a backup while the host runs. Later it kills the host.
var ledgerReplaced = fault{"ledger replaced by an older copy, host killed later", func(ctx context.Context, w *world, f *Fault) {
	back := w.disconnectHalf(f)
	older, moved := w.host.store+".older", w.host.store+".moved"
	w.copyLedger(older)
	pause(ctx, 2*time.Second)
	w.moveLedger(older, w.host.store)
	w.awaitStore(ctx, "another file")
	pause(ctx, 2*time.Second)
	w.moveLedger(w.host.store, moved)
	w.awaitLedger(ctx)
	w.killHost(f)
	w.host.start()
	back()
	w.until("the host is ready", w.host.ready)
	if err := os.Remove(moved); err != nil {
		w.t.Errorf("removing the older ledger: %v", err)
	}
}}

// ledgerUnwritable makes the ledger's disk read-only when the host opens the file again after an
// error.
var ledgerUnwritable = fault{"ledger can't be written to", func(ctx context.Context, w *world, _ *Fault) {
	unlock := w.lockLedger()
	w.awaitStore(ctx, "locked")
	writable := w.makeReadOnly()
	unlock()
	w.awaitStore(ctx, "read-only")
	pause(ctx, 2*time.Second)
	writable()
	w.until("the host is ready by itself", w.host.ready)
}}

// maxNoticeDelay is how long the host may take to notice a change of its ledger's file and to
// write it anew. A host with a planted mistake never does, so the test doesn't wait for it as a
// condition.
const maxNoticeDelay = 10 * time.Second

// awaitLedger waits until the host is ready and its ledger's file is back.
func (w *world) awaitLedger(ctx context.Context) {
	for end := time.Now().Add(maxNoticeDelay); time.Now().Before(end); pause(ctx, 50*time.Millisecond) {
		if _, err := os.Stat(w.host.store); err == nil && w.host.ready() {
			return
		}
	}
}

// awaitStore waits until the host's readiness page gives that reason for an unusable ledger.
func (w *world) awaitStore(ctx context.Context, why string) {
	for end := time.Now().Add(maxNoticeDelay); time.Now().Before(end); pause(ctx, 50*time.Millisecond) {
		for line := range strings.Lines(w.host.readiness()) {
			if strings.HasPrefix(line, "fail store ledger: ") && strings.Contains(line, why) {
				w.t.Log(strings.TrimSpace(line))
				return
			}
		}
	}
	w.t.Logf("the host doesn't say that its ledger is %s: %q", why, w.host.readiness())
}

// copyLedger makes a backup of the ledger.
func (w *world) copyLedger(path string) {
	db, err := sql.Open("sqlite", fmt.Sprintf("file:%s?_pragma=busy_timeout(%d)", w.host.store, await.Patience.Milliseconds()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("VACUUM INTO ?", path); err != nil {
		w.t.Fatalf("copying the ledger: %v", err)
	}
}

func (w *world) moveLedger(from, to string) {
	if err := os.Rename(from, to); err != nil {
		w.t.Errorf("moving a ledger: %v", err)
	}
}

// makeReadOnly lets no process open a file in the ledger's folder for writing, until writable is
// called. Open files stay writable.
func (w *world) makeReadOnly() (writable func()) {
	folder := filepath.Dir(w.host.store)
	err := unix.Mount(folder, folder, "", unix.MS_BIND, "")
	if err == nil {
		err = unix.Mount("", folder, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err != nil {
		w.t.Fatalf("making the ledger's disk read-only: %v", err)
	}
	return func() {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			w.t.Errorf("making the ledger's disk writable: %v", err)
		}
	}
}
