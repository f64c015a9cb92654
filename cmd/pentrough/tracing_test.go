package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

const (
	traceExamples = "../../docs/examples/tracing"
	someTrace     = "0af7651916cd43dd8448eb211c80319c"
	someSpan      = "b7ad6b7169203331"
	someParent    = "00-" + someTrace + "-" + someSpan + "-01"
)

// tracedHost runs the example of tracing, with an answering device, in this process.
type tracedHost struct {
	collector *testenv.Collector
	amqp      *amqp.Channel
	results   <-chan amqp.Delivery
	web       string
	log       *output
	// stop stops the host and returns how that went.
	stop func() error
}

// output collects what a host logs.
type output struct {
	mu sync.Mutex
	bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Buffer.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Buffer.String()
}

func startTraced(t *testing.T) *tracedHost {
	t.Helper()
	h := &tracedHost{collector: testenv.NewCollector(t), log: &output{}}
	url := testenv.Broker(t).VHost(t)
	t.Setenv("AMQP_URL", url)
	t.Setenv("OTLP_ENDPOINT", h.collector.URL)
	text, err := os.ReadFile(filepath.Join(traceExamples, "pentrough.toml"))
	if err != nil {
		t.Fatal(err)
	}
	devices, web, adm := testenv.Port(t), testenv.Port(t), testenv.Port(t)
	h.web = "http://127.0.0.1:" + web
	file := filepath.Join(t.TempDir(), "pentrough.toml")
	changed := strings.NewReplacer(`":8123"`, `"127.0.0.1:`+devices+`"`, "127.0.0.1:8080", "127.0.0.1:"+web,
		"[host]", fmt.Sprintf("[host]\nadmin = \"127.0.0.1:%s\"\nshutdown_timeout = \"10s\"", adm)).Replace(string(text))
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- (&run{file: file, out: io.Discard, errOut: h.log}).serve(ctx) }()
	h.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
		if t.Failed() {
			t.Logf("the host logged:\n%s", h.log)
		}
	})
	testenv.AwaitReady(t, adm, nil)
	h.device(t, "127.0.0.1:"+devices)
	testenv.AwaitSessions(t, adm, 1, nil)

	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if h.amqp, err = conn.Channel(); err != nil {
		t.Fatal(err)
	}
	if h.results, err = h.amqp.Consume("results", "", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	return h
}

// device connects one that answers each line.
func (h *tracedHost) device(t *testing.T, addr string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var answering sync.WaitGroup
	answering.Go(func() {
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			fmt.Fprintf(conn, "%s done\r\n", lines.Text())
		}
	})
	t.Cleanup(func() { conn.Close(); answering.Wait() })
}

// command publishes a command with headers, and returns its result.
func (h *tracedHost) command(t *testing.T, id string, headers amqp.Table) amqp.Delivery {
	t.Helper()
	if err := h.amqp.Publish("pentrough", "commands", true, false, amqp.Publishing{
		MessageId: id, Headers: headers, Body: []byte(`{"device":"127.0.0.1","cmd":"status"}`),
	}); err != nil {
		t.Fatal(err)
	}
	return h.result(t)
}

func (h *tracedHost) result(t *testing.T) amqp.Delivery {
	t.Helper()
	d := await.Receive(t, "a result", h.results)
	if !strings.Contains(string(d.Body), `"state":"answered"`) {
		t.Errorf("the result is %s", d.Body)
	}
	return d
}

// spansOf returns the spans of a trace by name, each of which it has once.
func (h *tracedHost) spansOf(t *testing.T, trace string, names ...string) map[string]testenv.Span {
	t.Helper()
	found := map[string]testenv.Span{}
	for _, s := range h.collector.Spans() {
		if s.Trace != trace {
			continue
		}
		if _, twice := found[s.Name]; twice || !slices.Contains(names, s.Name) {
			t.Errorf("unexpected span %q", s.Name)
		}
		found[s.Name] = s
	}
	for _, name := range names {
		if _, ok := found[name]; !ok {
			t.Errorf("there is no span %q", name)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	return found
}

// below holds that a span is that of parent's child, and inside its time.
func below(t *testing.T, child, parent testenv.Span, kind string) {
	t.Helper()
	if child.Parent != parent.ID || child.Kind != kind || child.Failed || child.Start.Before(parent.Start) || child.End.Before(child.Start) {
		t.Errorf("below %q %s: %+v", parent.Name, parent.ID, child)
	}
}

// A command that comes with a trace has it all the way: to the socket, to the device's answer, and
// on with the result.
func TestTracingFromTheBrokerToTheAnswer(t *testing.T) {
	h := startTraced(t)
	result := h.command(t, "c-1", amqp.Table{"traceparent": someParent, "tracestate": "vendor=x"})
	unsampled := h.command(t, "c-2", amqp.Table{"traceparent": strings.Replace(someParent, someTrace, strings.Repeat("a", 32), 1)[:53] + "00"})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.web+"/commands?wait=30s", strings.NewReader(`{"device":"127.0.0.1","cmd":"status"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Traceparent", strings.Replace(someParent, someTrace, strings.Repeat("b", 32), 1))
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("HTTP %s", answer.Status)
	}
	h.result(t)
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}

	spans := h.spansOf(t, someTrace, "commands process", "device write", "device answer", "broker:results publish")
	process, write, answered := spans["commands process"], spans["device write"], spans["device answer"]
	if process.Parent != someSpan || process.State != "vendor=x" || process.Kind != "consumer" || process.Resource["service.name"] != "gateway" {
		t.Errorf("the command's span: %+v", process)
	}
	for key, want := range map[string]any{
		"messaging.system": "rabbitmq", "messaging.message.id": "c-1", "pentrough.id": "c-1", "pentrough.device": "127.0.0.1", "pentrough.state": "answered",
	} {
		if process.Attributes[key] != want {
			t.Errorf("%s is %v, want %v", key, process.Attributes[key], want)
		}
	}
	below(t, write, process, "client")
	below(t, answered, process, "client")
	below(t, spans["broker:results publish"], process, "producer")
	if !answered.Start.Equal(write.End) || !slices.Equal(write.Events, []string{"given to the connection"}) || spans["broker:results publish"].Start.Before(answered.End) {
		t.Errorf("the steps: %+v, %+v, %+v", write, answered, spans["broker:results publish"])
	}
	if got := result.Headers["traceparent"]; got != "00-"+someTrace+"-"+process.ID+"-01" || result.Headers["tracestate"] != "vendor=x" {
		t.Errorf("the result goes on as %v", result.Headers)
	}
	if got, _ := unsampled.Headers["traceparent"].(string); !strings.HasPrefix(got, "00-aaaa") || !strings.HasSuffix(got, "-00") {
		t.Errorf("the result of an unsampled command goes on as %v", got)
	}
	h.spansOf(t, strings.Repeat("a", 32))

	// The HTTP request's trace goes through the broker.
	spans = h.spansOf(t, strings.Repeat("b", 32), "web process", "broker:commands publish",
		"commands process", "device write", "device answer", "broker:results publish")
	below(t, spans["broker:commands publish"], spans["web process"], "producer")
	below(t, spans["commands process"], spans["web process"], "consumer")
	below(t, spans["device write"], spans["commands process"], "client")
}

// A collector that takes connections and answers nothing holds up neither a command nor the stop.
func TestTracingWithAStalledCollector(t *testing.T) {
	h := startTraced(t)
	h.collector.Answer(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return false })
	for i := range 20 {
		h.command(t, fmt.Sprint("c-", i), amqp.Table{"traceparent": someParent})
	}
	// A stop that runs into its deadline is an error.
	if err := h.stop(); err != nil {
		t.Errorf("the stop: %v", err)
	}
	if n := strings.Count(h.log.String(), "could not be exported and are lost"); n != 1 {
		t.Errorf("the loss is told %d times", n)
	}
}

// The two files of the example fit each other.
func TestTracingExampleNamesItsCollector(t *testing.T) {
	const addr = "127.0.0.1:4318"
	for name, want := range map[string]string{"pentrough.toml": "${OTLP_ENDPOINT:-http://" + addr + "}", "collector.yaml": "endpoint: " + addr + "\n"} {
		text, err := os.ReadFile(filepath.Join(traceExamples, name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("%s has no %q", name, want)
		}
	}
}
