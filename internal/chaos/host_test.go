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

// prefetch is the host's window.
const prefetch = 200

const hostConfig = `
[host]
name = "chaos"
admin = "127.0.0.1:%[1]d"
shutdown_timeout = %[12]q
log = { level = "info" }
[store]
%[2]s
[transport.broker]
type = "amqp"
url = %[3]q
prefetch = %[4]d
heartbeat = "2s"
[transport.broker.topic.commands]
exchange = "device.commands"
queue = "device.commands"
queue_type = %[5]q
arguments = { x-dead-letter-exchange = "", x-dead-letter-routing-key = "dead-letters" }
%[11]s
routing_key = "#"
[transport.broker.topic.groups]
exchange = "device.groups"
queue = "device.groups"
queue_type = %[5]q
routing_key = "#"
[transport.broker.topic.results]
exchange = "device.results"
queue = "results"
routing_key = "#"
[transport.broker.topic.group-results]
exchange = "device.results"
queue = "group-results"
routing_key = "#"
[transport.devices]
type = "tcp"
listen = "127.0.0.1:%[6]d"
send_buffer = %[8]d
[middleware.poison]
to = "broker:commands.poison"
[pipeline.commands]
from = "broker:commands"
middleware = [%[7]s]
handler = { type = "deliver", devices = "devices", timeout = %[9]q%[10]s }
to = "broker:results"
[pipeline.groups]
from = "broker:groups"
middleware = ["poison"]
handler = { type = "fanout", to = "broker:commands", devices = "devices" }
to = "broker:results"
[pipeline.tally]
from = "broker:group-results"
middleware = ["poison"]
handler = { type = "tally", to = "broker:summaries", timeout = "15s" }
[pipeline.status]
from = "devices:events"
to = "broker:status"
`

// answerPattern recognises answers by the id that they repeat.
const answerPattern = `, answer = { command = '^(\S+)', frame = '^ok (\S+)$', max_open = 4 }`

// sendBuffer is small, so that commands for a device that doesn't read are soon written only in
// part.
const sendBuffer = 4 << 10

// hostPlan says how a host differs from one that users run.
type hostPlan struct {
	// overlay is the file for go build -overlay, which replaces source files of the host; empty is
	// none.
	overlay string
	// wrap is a command line that runs the host's command line.
	wrap []string
	// folder is the folder of its store; empty is the run's folder.
	folder string
	// memoryStore keeps its store in memory.
	memoryStore bool
	// middleware is the pipeline's middleware; empty is the usual list.
	middleware string
	// answering is how it recognises answers.
	answering Answering
	// deliveryLimit is the delivery limit of a quorum queue; 0 is none.
	deliveryLimit int
	// shutdownTimeout is its shutdown_timeout; 0 is 20 s.
	shutdownTimeout time.Duration
}

// begunTimeout is how long the host waits for the redelivery of a command.
const begunTimeout = 2 * time.Second

// host is the host as users run it. It is started again when a fault has ended it.
type host struct {
	plan      hostPlan
	store     string // the ledger's file; empty if it is in memory
	t         *testing.T
	bin, file string
	log       *os.File
	admin     int
	devices   int
	mu        sync.Mutex
	cmd       *exec.Cmd
	ended     chan struct{}
	err       error
	started   time.Time // the last process
}

func newHost(t *testing.T, p hostPlan, folder, url, queue string) *host {
	h := &host{
		t: t, plan: p, bin: filepath.Join(folder, "pentrough"), file: filepath.Join(folder, "chaos.toml"),
		store: filepath.Join(cmp.Or(p.folder, folder), "ledger.db"),
	}
	store := fmt.Sprintf("type = \"sqlite\"\npath = %q", h.store)
	if p.memoryStore {
		h.store, store = "", `type = "memory"`
	}
	list := cmp.Or(p.middleware, fmt.Sprintf(`"poison", { type = "dedup", begun_timeout = %q }, "retry"`, begunTimeout.String()))
	if out, err := exec.Command("go", "build", "-overlay", p.overlay, "-o", h.bin, "../../cmd/pentrough").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	for _, port := range []*int{&h.admin, &h.devices} {
		var err error
		if *port, err = testenv.FreePort(); err != nil {
			t.Fatal(err)
		}
	}
	answer, limit := "", ""
	if p.deliveryLimit != 0 && queue == "quorum" {
		limit = fmt.Sprintf("delivery_limit = %d", p.deliveryLimit)
	}
	if p.answering.Pattern {
		answer = answerPattern
	}
	text := fmt.Sprintf(hostConfig, h.admin, store, url, prefetch, queue, h.devices, list, sendBuffer, cmp.Or(p.answering.Timeout, time.Second).String(), answer, limit, cmp.Or(p.shutdownTimeout, 20*time.Second).String())
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
			t.Logf("host.log:\n%s", text[max(0, len(text)-5_000):])
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
	h.started = time.Now()
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

// metric returns a number from the host's metrics, or 0 if it isn't there.
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
