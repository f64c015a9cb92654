package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv"
)

// smallDisk returns a folder on a disk that can be filled.
func smallDisk(t *testing.T, size string) string {
	folder, err := testenv.SmallDisk(t, size)
	if err != nil {
		t.Fatalf("%v; that takes root or, as `make chaos` does it, namespaces of one's own: unshare --map-root-user --mount", err)
	}
	return folder
}

// diskFull fills the ledger's disk, except for the host's own reserve, while commands arrive.
// Later it frees the disk.
var diskFull = fault{"ledger's disk full", func(ctx context.Context, w *world, _ *Fault) {
	free := w.fillDisk()
	pause(ctx, 4*time.Second) // the host may have room for what had begun, or even for all
	free()
	w.until("the host is ready by itself", w.host.ready)
}}

// diskFullAlone is diskFull with nothing else that disturbs the devices. They must notice only
// that no commands arrive.
var diskFullAlone = fault{"ledger's disk full", func(ctx context.Context, w *world, _ *Fault) {
	before := w.fleet.countConnections()
	free := w.keepDiskFull()
	w.awaitFull()
	// What was on its way may still be written. After that nothing is, as nothing can be recorded.
	// Results may come that were recorded before.
	pause(ctx, 2*time.Second)
	reads := w.fleet.countLines()
	pause(ctx, 3*time.Second)
	if n := w.fleet.countLines() - reads; n > 0 {
		w.t.Errorf("devices got %d commands while the ledger's disk was full", n)
	}
	if now := w.fleet.countConnections(); now != before {
		w.t.Errorf("devices connected again while the ledger's disk was full: %d connections, %d before", now, before)
	}
	free()
	w.until("the host is ready by itself", w.host.ready)
}}

// diskFullKill kills a host that can't write its ledger, and starts it again before there is room.
var diskFullKill = fault{"host killed, its ledger's disk full", func(ctx context.Context, w *world, f *Fault) {
	free := w.keepDiskFull()
	w.awaitFull()
	w.killHost(f)
	w.host.start()
	pause(ctx, 5*time.Second)
	free()
	w.until("the host is ready by itself", w.host.ready)
}}

// diskFullStart lets a host create its ledger on a disk that is already full.
var diskFullStart = fault{"host's first start, its ledger's disk full", func(_ context.Context, w *world, _ *Fault) {
	// An orderly stop leaves nothing that the ledger is needed for. What began in a run that was
	// killed waits there for its result: no kill may come before this fault.
	w.stopHost()
	for _, part := range []string{"", ".lock"} {
		if err := os.Remove(w.host.store + part); err != nil {
			w.t.Error(err)
		}
	}
	free := w.keepDiskFull()
	w.host.start()
	w.awaitFull()
	free()
	w.until("the host is ready by itself", w.host.ready)
}}

// diskFullStop stops the host when it can't record the outcomes of commands that it has written,
// because it hasn't even its reserve. Only its exit code and its log can name them then.
var diskFullStop = fault{"host stopped, its ledger's disk full", func(_ context.Context, w *world, _ *Fault) {
	free := w.keepDiskFull()
	w.awaitFull()
	w.stopHost()
	free()
	w.host.start()
	w.until("the host is ready", w.host.ready)
}}

// outageTime is how long an outage of the ledger is: a host that gave its commands back to the
// broker every few seconds would exceed the deliveryLimit.
const (
	outageTime    = 12 * time.Second
	deliveryLimit = 3
)

// usualLimit is RabbitMQ 4's default delivery limit. Runs that kill the host often use it, because
// each kill is a delivery.
const usualLimit = 20

// outage, outageRestart and outageStop fill the ledger's disk for long. The broker counts how
// often it delivers a command, so the host has to keep what it has.
var (
	outage        = fault{"long outage of the ledger", func(ctx context.Context, w *world, _ *Fault) { w.fillDiskForLong(ctx, func() {}) }}
	outageRestart = fault{"long outage of the ledger, broker restarted", func(ctx context.Context, w *world, _ *Fault) {
		w.fillDiskForLong(ctx, func() { w.node.Restart(w.t) })
	}}
	outageStop = fault{"long outage of the ledger, host stopped and started", func(ctx context.Context, w *world, _ *Fault) {
		w.fillDiskForLong(ctx, func() {
			w.stopHost()
			w.host.start()
		})
	}}
)

// fillDiskForLong fills the ledger's disk for outageTime and calls middle in the meantime.
func (w *world) fillDiskForLong(ctx context.Context, middle func()) {
	free := w.keepDiskFull()
	w.awaitFull()
	end := time.Now().Add(outageTime)
	pause(ctx, outageTime/3)
	middle()
	pause(ctx, time.Until(end))
	free()
	w.until("the host is ready by itself", w.host.ready)
}

// TestFullDisk fills the disk of a host's ledger while commands arrive. No command may be lost or
// doubled, devices stay connected, and the host recovers when there is room again.
func TestFullDisk(t *testing.T) {
	if os.Getenv("CHAOS_SEED") == "" {
		t.Skip("it is run by `make chaos`, which says CHAOS_SEED")
	}
	h := runPlan(t, plan{
		seed: uint64(setting(t, "CHAOS_SEED", 1)), queue: "quorum", devices: 50, rate: 300, load: usualLoad,
		host:   hostPlan{folder: smallDisk(t, "24m"), deliveryLimit: deliveryLimit, shutdownTimeout: 8 * time.Second, answering: Answering{Timeout: answerTimeout, Pattern: true}},
		faults: []fault{diskFullStart, diskFullAlone, diskFullKill, diskFullStop, outageRestart, outageStop}, node: testenv.NewNode(t), patience: time.Minute,
	})
	if r := reportRun(t, h); r.CountViolations() > 0 {
		t.Error("a full disk breaks promises")
	}
}

// fillDisk leaves no room on the ledger's disk until free is called. What the host then removes is
// free for the host.
func (w *world) fillDisk() (free func()) {
	w.t.Helper()
	filler := w.filler()
	filler.fill(w.t)
	return func() { filler.remove(w.t) }
}

// keepDiskFull is fillDisk that also takes all room that becomes free, such as the host's reserve.
func (w *world) keepDiskFull() (free func()) {
	w.t.Helper()
	filler := w.filler()
	filler.fill(w.t)
	ctx, stop := context.WithCancel(context.Background())
	var filling sync.WaitGroup
	filling.Go(func() {
		for ; ctx.Err() == nil; pause(ctx, time.Millisecond) {
			filler.fill(w.t)
		}
	})
	return func() {
		stop()
		filling.Wait()
		filler.remove(w.t)
	}
}

// filler is a file that takes the room of a disk.
type filler struct{ *os.File }

func (w *world) filler() filler {
	w.t.Helper()
	if w.host.plan.folder == "" {
		w.t.Fatal("the ledger is on a disk that others need")
	}
	file, err := os.Create(filepath.Join(w.host.plan.folder, "filler"))
	if err != nil {
		w.t.Fatal(err)
	}
	return filler{file}
}

// fill takes all free room.
func (f filler) fill(t *testing.T) {
	var err error
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("filling the ledger's disk: %v", err)
	}
}

func (f filler) remove(t *testing.T) {
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		t.Errorf("freeing the ledger's disk: %v", err)
	}
}

// awaitFull waits until the host reports that it isn't ready because its ledger's disk is full.
func (w *world) awaitFull() {
	w.t.Helper()
	said := ""
	w.until("the host says that its ledger's disk is full", func() bool {
		for line := range strings.Lines(w.host.readiness()) {
			if strings.HasPrefix(line, "fail store ledger: ") && strings.Contains(line, "full") {
				said = strings.TrimSpace(line)
			}
		}
		return said != ""
	})
	w.t.Log(said)
}

// readiness returns the text of the host's readiness page, or "" if the host doesn't answer.
func (h *host) readiness() string {
	r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", h.admin))
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body) // as far as it got
	return string(text)
}

// countConnections returns how many connections devices have made.
func (f *fleet) countConnections() int {
	n := 0
	for _, d := range f.devices {
		d.mu.Lock()
		n += d.connections
		d.mu.Unlock()
	}
	return n
}

// countLines returns how many lines devices have read.
func (f *fleet) countLines() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.reads) + len(f.pending)
}
