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

// handler hands messages to the program that runs at the moment. keep (see keeper.go) sees that one does.
type handler struct {
	config       Config
	settings     json.RawMessage
	env          handlers.Env
	destinations map[string]bool
	stderr       *reporter
	metrics      *metrics

	life    context.Context
	end     context.CancelFunc
	work    sync.WaitGroup // keep, and children
	reloads chan reload
	forks   chan fork

	// mu guards what follows, and the queue's and the window's part of children.
	mu      sync.Mutex
	current *child // ready for requests; nil while there is none
	down    error  // why there is none, if that may last
	next    time.Time
	outage  *outage.Outage
	queue   []*ticket // wait for room, in order
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
	h.life, h.end = context.WithCancel(context.Background())
	return h, nil
}

// messageBuffers are what messages are encoded into.
var messageBuffers = sync.Pool{New: func() any { return new([]byte) }}

// Handle has the program handle a message. It returns when the program has responded, its time is over, the program has ended, or nobody
// waits any more.
func (h *handler) Handle(msg *message.Message) ([]*message.Message, error) {
	buffer := messageBuffers.Get().(*[]byte)
	text := stdio.AppendMessage((*buffer)[:0], msg, "")
	out, err := h.ask(msg.Context(), msg.UUID, text)
	if cap(text) <= stdio.MostKept {
		*buffer = text
		messageBuffers.Put(buffer)
	}
	return out, err
}

// ask does a request with a message that is JSON already, once more if the program ends meanwhile. It doesn't keep text.
func (h *handler) ask(ctx context.Context, uuid string, text []byte) ([]*message.Message, error) {
	for {
		c, err := h.admit(ctx, uuid, len(text))
		if err != nil {
			return nil, err
		}
		r, err := c.begin(uuid, text)
		if err == nil {
			select {
			case a := <-r.answer:
				if !errors.Is(a.err, errEnded) {
					return a.messages, a.err
				}
				continue
			case <-ctx.Done():
				c.abandon(r)
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

// Reload implements handlers.Reloader: the program is started once more, and takes the place of the one that runs.
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

// Close ends the program: it is asked to, given time, and killed.
func (h *handler) Close() error {
	h.end()
	h.work.Wait()
	return nil
}

// metrics of all processes of a handler.
type metrics struct {
	starts, ends prometheus.Counter
	memory       prometheus.Gauge
	requests     prometheus.Gauge
}

func newMetrics() *metrics {
	return &metrics{
		starts:   prometheus.NewCounter(prometheus.CounterOpts{Name: "pentrough_process_starts_total", Help: "Times that the plugin's process became ready."}),
		ends:     prometheus.NewCounter(prometheus.CounterOpts{Name: "pentrough_process_failures_total", Help: "Times that the plugin's process ended or was killed, other than at a stop or a swap."}),
		memory:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "pentrough_process_resident_bytes", Help: "Memory of the plugin's process and its children, looked at every second if there is a limit."}),
		requests: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pentrough_process_requests", Help: "Messages that the plugin has at the moment."}),
	}
}

func (m *metrics) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, to) }

func (m *metrics) Collect(to chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{m.starts, m.ends, m.memory, m.requests} {
		c.Collect(to)
	}
}
