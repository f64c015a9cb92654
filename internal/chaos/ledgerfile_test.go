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

// ledgerRemoved removes the ledger's file under the host while commands are held, and later kills the
// host: then only a file that the host made anew has them.
var ledgerRemoved = fault{"ledger removed, host killed later", func(ctx context.Context, w *world, f *Fault) {
	back := w.absent(f)
	pause(ctx, time.Second)
	if err := os.Remove(w.host.store); err != nil {
		w.t.Errorf("removing the ledger: %v", err)
	}
	w.awaitLedger(ctx)
	w.kill(f)
	w.host.start()
	back()
	w.until("the host is ready", w.host.ready)
}}

// ledgerReplaced puts an older copy into the place of the ledger, as somebody does who restores a
// backup and forgets that the host runs, and moves it away again. Later the host is killed.
var ledgerReplaced = fault{"ledger replaced by an older copy, host killed later", func(ctx context.Context, w *world, f *Fault) {
	back := w.absent(f)
	older, moved := w.host.store+".older", w.host.store+".moved"
	w.copyLedger(older)
	pause(ctx, 2*time.Second)
	w.rename(older, w.host.store)
	w.awaitStore(ctx, "another file")
	pause(ctx, 2*time.Second)
	w.rename(w.host.store, moved)
	w.awaitLedger(ctx)
	w.kill(f)
	w.host.start()
	back()
	w.until("the host is ready", w.host.ready)
	if err := os.Remove(moved); err != nil {
		w.t.Errorf("removing the older ledger: %v", err)
	}
}}

// ledgerUnwritable has the ledger's disk be read-only when the host opens the file again, which it
// does after an error.
var ledgerUnwritable = fault{"ledger can't be written to", func(ctx context.Context, w *world, _ *Fault) {
	unlock := w.lockLedger()
	w.awaitStore(ctx, "locked")
	writable := w.readOnly()
	unlock()
	w.awaitStore(ctx, "read-only")
	pause(ctx, 2*time.Second)
	writable()
	w.until("the host is ready by itself", w.host.ready)
}}

// noticing is how long the host may take to notice what became of its ledger, and to write it anew.
// A host with a mistake never does, so this is no condition that a test waits for.
const noticing = 10 * time.Second

// awaitLedger waits until the host is ready and its ledger is in its place again.
func (w *world) awaitLedger(ctx context.Context) {
	for end := time.Now().Add(noticing); time.Now().Before(end); pause(ctx, 50*time.Millisecond) {
		if _, err := os.Stat(w.host.store); err == nil && w.host.ready() {
			return
		}
	}
}

// awaitStore waits until the host says in such words why it can't use its ledger.
func (w *world) awaitStore(ctx context.Context, why string) {
	for end := time.Now().Add(noticing); time.Now().Before(end); pause(ctx, 50*time.Millisecond) {
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

func (w *world) rename(from, to string) {
	if err := os.Rename(from, to); err != nil {
		w.t.Errorf("moving a ledger: %v", err)
	}
}

// readOnly has nobody open a file of the ledger's folder for writing, until writable. What is open
// stays as it is.
func (w *world) readOnly() (writable func()) {
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
