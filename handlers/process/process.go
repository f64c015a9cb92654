package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/internal/stdio"
)

// handler sends each message as a request to the current process. The keeper makes sure that there
// is one (see keeper.go).
type handler struct {
	config       Config
	settings     json.RawMessage
	env          handlers.Env
	destinations map[string]bool
	stderr       *reporter
	metrics      *metrics

	// life ends with Close.
	life        context.Context
	endLife     context.CancelFunc
	work        sync.WaitGroup // the keeper, and the goroutines of the processes
	reloads     chan reload
	startOrders chan startOrder

	// mu guards the next fields, and some fields of each child.
	mu      sync.Mutex
	current *child    // gets the next requests; nil while no process is ready
	down    error     // why there is no process; nil if one is ready or will be within longPause
	next    time.Time // of the next start, while down is set
	outage  *outage.Outage
	queue   []*ticket // messages that wait for room, in order
	suspicions
}

var (
	_ handlers.Starter  = (*handler)(nil)
	_ handlers.Reporter = (*handler)(nil)
	_ handlers.Reloader = (*handler)(nil)
	_ handlers.Outsider = (*Config)(nil)
	_ handlers.Checker  = (*Config)(nil)

	_ handlers.SettingsChecker = (*Config)(nil)
	_ io.Closer                = (*handler)(nil)
)

func newHandler(c Config, settings json.RawMessage, env handlers.Env) (*handler, error) {
	h := &handler{
		outage: outage.New(env.Logger, "the plugin's process"),
		config: c, settings: settings, env: env, destinations: map[string]bool{}, stderr: newReporter(env.Logger), reloads: make(chan reload),
		suspicions: newSuspicions(), metrics: newMetrics(),
	}
	for _, to := range c.Destinations {
		h.destinations[string(to)] = true
	}
	if err := env.Registerer.Register(h.metrics); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	h.life, h.endLife = context.WithCancel(context.Background())
	return h, nil
}

// messageBuffers are buffers for encoded messages.
var messageBuffers = sync.Pool{New: func() any { return new([]byte) }}

// Handle sends the message to the program and returns its response. It returns an error if the
// response comes too late, if the message has ended several processes, or if the message's context
// ends.
func (h *handler) Handle(msg *message.Message) ([]*message.Message, error) {
	buffer := messageBuffers.Get().(*[]byte)
	text := stdio.AppendMessage((*buffer)[:0], msg, "")
	out, err := h.request(msg.Context(), msg.UUID, text)
	if cap(text) <= stdio.MaxKept {
		*buffer = text
		messageBuffers.Put(buffer)
	}
	return out, err
}

// request sends an encoded message to the process and waits for the response. If the process ends
// before that, it sends the message to the next process. It doesn't use text after it returns.
func (h *handler) request(ctx context.Context, uuid string, text []byte) ([]*message.Message, error) {
	for {
		c, err := h.admit(ctx, uuid, len(text))
		if err != nil {
			return nil, err
		}
		r, err := c.sendRequest(uuid, text)
		if err == nil {
			select {
			case a := <-r.response:
				if !errors.Is(a.err, errEnded) {
					return a.messages, a.err
				}
				continue
			case <-ctx.Done():
				c.stopWaiting(r)
				return nil, context.Cause(ctx)
			}
		}
		if !errors.Is(err, errEnded) {
			return nil, err
		}
	}
}

// Health implements handlers.Reporter.
func (h *handler) Health() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// Reload implements handlers.Reloader. It starts a new process, which replaces the current one
// when it is ready. If the start fails, the current process stays.
func (h *handler) Reload(ctx context.Context) error {
	r := reload{ctx, make(chan error, 1)}
	select {
	case h.reloads <- r:
		return <-r.done
	case <-h.life.Done():
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errClosed = errors.New("the handler is closed")

// Close stops the keeper and the process, and waits until both have ended.
func (h *handler) Close() error {
	h.endLife()
	h.work.Wait()
	return nil
}

// metrics are the metrics of a handler, over all its processes.
type metrics struct {
	starts, ends prometheus.Counter
	memory       prometheus.Gauge
	requests     prometheus.Gauge
}

func newMetrics() *metrics {
	return &metrics{
		starts:   prometheus.NewCounter(prometheus.CounterOpts{Name: "pentrough_process_starts_total", Help: "Number of times that a process of the plugin became ready."}),
		ends:     prometheus.NewCounter(prometheus.CounterOpts{Name: "pentrough_process_failures_total", Help: "Number of times that a process of the plugin exited or was killed, other than at a stop or a reload."}),
		memory:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "pentrough_process_resident_bytes", Help: "Memory of the plugin's process and its children. It is measured every second if memory has a limit."}),
		requests: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pentrough_process_requests", Help: "Number of messages that the plugin has and hasn't responded to."}),
	}
}

func (m *metrics) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, to) }

func (m *metrics) Collect(to chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{m.starts, m.ends, m.memory, m.requests} {
		c.Collect(to)
	}
}
