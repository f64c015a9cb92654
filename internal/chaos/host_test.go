package chaos

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv"
)

// prefetch is how many commands the host holds unacked at most.
const prefetch = 200

const hostConfig = `
[host]
name = "chaos"
admin = "127.0.0.1:%[1]d"
shutdown_timeout = "20s"
log = { level = "info" }
[store]
type = "sqlite"
path = %[2]q
[transport.broker]
type = "amqp"
url = %[3]q
prefetch = %[4]d
heartbeat = "2s"
[transport.broker.topic.commands]
exchange = "device.commands"
queue = "device.commands"
queue_type = %[5]q
routing_key = "#"
[transport.devices]
type = "tcp"
listen = "127.0.0.1:%[6]d"
[middleware.poison]
to = "broker:commands.poison"
[pipeline.commands]
from = "broker:commands"
middleware = ["poison", "dedup", "retry"]
handler = { type = "deliver", devices = "devices" }
to = "broker:results"
[pipeline.status]
from = "devices:events"
to = "broker:status"
`

// hostPlan is how a host differs from what users run.
type hostPlan struct {
	// tags are build tags, which put something else into it.
	tags string
	// wrap is a command line that runs the host's.
	wrap []string
	// folder is where its store is; empty is the run's.
	folder string
}

// host is the host as users run it, started again whenever a fault ended it.
type host struct {
	plan      hostPlan
	store     string // the file
	t         *testing.T
	bin, file string
	log       *os.File
	admin     int
	devices   int
	mu        sync.Mutex
	cmd       *exec.Cmd
	ended     chan struct{}
	err       error
}

func newHost(t *testing.T, p hostPlan, folder, url, queue string) *host {
	h := &host{
		t: t, plan: p, bin: filepath.Join(folder, "pentrough"), file: filepath.Join(folder, "chaos.toml"),
		store: filepath.Join(cmp.Or(p.folder, folder), "ledger.db"),
	}
	if out, err := exec.Command("go", "build", "-tags", p.tags, "-o", h.bin, "../../cmd/pentrough").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	for _, port := range []*int{&h.admin, &h.devices} {
		var err error
		if *port, err = testenv.FreePort(); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(hostConfig, h.admin, h.store, url, prefetch, queue, h.devices)
	if err := os.WriteFile(h.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.log, err = os.Create(filepath.Join(folder, "host.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.kill()
		h.log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(h.log.Name())
			t.Logf("host.log:\n%s", text[max(0, len(text)-20_000):])
		}
	})
	return h
}

func (h *host) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	line := append(slices.Clone(h.plan.wrap), h.bin, "run", "-c", h.file)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = h.log, h.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		h.t.Errorf("starting the host: %v", err)
		return
	}
	ended := make(chan struct{})
	h.cmd, h.ended = cmd, ended
	go func() {
		defer close(ended)
		h.err = cmd.Wait()
	}()
}

func (h *host) signal(s syscall.Signal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cmd != nil {
		_ = h.cmd.Process.Signal(s) // it may have ended
	}
}

// kill ends the host without a chance to stop.
func (h *host) kill() {
	if h.cmd != nil {
		h.signal(syscall.SIGKILL)
		<-h.ended
	}
}

// stop ends the host in order.
func (h *host) stop() error {
	h.signal(syscall.SIGTERM)
	select {
	case <-h.ended:
		return h.err
	case <-time.After(40 * time.Second):
		h.kill()
		return errors.New("the host didn't stop within twice its shutdown_timeout")
	}
}

func (h *host) ready() bool {
	r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", h.admin))
	if err != nil {
		return false
	}
	defer r.Body.Close()
	return r.StatusCode == http.StatusOK
}

// metric reads a number from the host's metrics; 0 if it isn't there.
func (h *host) metric(ctx context.Context, name string) float64 {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", h.admin), nil)
	if err != nil {
		return 0
	}
	r, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, _ := strconv.ParseFloat(value, 64)
			return n
		}
	}
	return 0
}
