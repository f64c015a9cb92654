package redis

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// patience is the longest time that a test waits for a condition. Only a failing test waits that
// long.
const patience = time.Minute

// server is a redis-server with a socket of its own, which the test may stop and start.
type server struct {
	*testing.T
	folder string
	client *redis.Client
	cmd    *exec.Cmd
}

func newServer(t *testing.T) *server {
	t.Helper()
	// The path of a socket has at most 108 bytes, and t.TempDir may be longer.
	folder, err := os.MkdirTemp("/tmp", "redis-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	s := &server{T: t, folder: folder}
	s.client = redis.NewClient(&redis.Options{Network: "unix", Addr: s.socket()})
	t.Cleanup(func() { _ = s.client.Close() })
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *server) socket() string { return filepath.Join(s.folder, "socket") }

func (s *server) url() transports.Secret { return transports.Secret("unix://" + s.socket()) }

func (s *server) start() {
	s.Helper()
	s.cmd = exec.Command("redis-server", "--port", "0", "--unixsocket", s.socket(), "--dir", s.folder,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.Fatalf("starting redis-server: %v", err)
	}
	s.until("the server answers", func() bool { return s.client.Ping(context.Background()).Err() == nil })
}

func (s *server) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func (s *server) until(what string, so func() bool) {
	s.Helper()
	for begun := time.Now(); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > patience {
			s.Fatalf("waited %s until %s", patience, what)
		}
	}
}

// add puts entries into a stream.
func (s *server) add(stream string, payloads ...string) {
	s.Helper()
	for _, payload := range payloads {
		err := s.client.XAdd(context.Background(), &redis.XAddArgs{Stream: stream, Values: []string{"message_id", payload, payloadField, payload}}).Err()
		if err != nil {
			s.Fatal(err)
		}
	}
}

// The suite looks for leaked goroutines, so no other test may run at the same time.
func TestConformance(t *testing.T) {
	s := newServer(t)
	transporttest.Run(t, transporttest.Harness{
		Topic:      "commands",
		Redelivers: true,
		Returns:    true,
		Config: func(t *testing.T) transports.Config {
			if err := s.client.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			return &Config{URL: s.url(), Subscriptions: 1}
		},
		Put: func(t *testing.T, _ transports.Transport, payloads ...string) { s.add("commands", payloads...) },
	})
}

// open starts a transport with one pipeline. It returns the transport and the pipeline's messages.
func (s *server) open(c *Config) (transports.Transport, <-chan *transports.Delivery) {
	s.Helper()
	tr, err := c.New(transports.Env{
		Name: "redis", Host: "host-1", Now: time.Now, Registerer: prometheus.NewRegistry(),
		Logger: slog.New(slog.NewTextHandler(s.Output(), nil)),
	})
	if err != nil {
		s.Fatal(err)
	}
	if err := tr.Start(s.Context()); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { s.close(tr) })
	sub, err := tr.Subscriber(transports.Consumer{Pipeline: "p"})
	if err != nil {
		s.Fatal(err)
	}
	taken := make(chan *transports.Delivery, 100)
	if _, err := sub.Subscribe(context.Background(), "commands", func(d *transports.Delivery) { taken <- d }); err != nil {
		s.Fatal(err)
	}
	return tr, taken
}

func (s *server) close(tr transports.Transport) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := tr.Close(ctx); err != nil {
		s.Errorf("closing: %v", err)
	}
}

// acked reports whether the pipeline has acked every message that it received.
func (s *server) acked() bool {
	pending, err := s.client.XPending(s.Context(), "commands", "p").Result()
	return err == nil && pending.Count == 0
}

func (s *server) next(taken <-chan *transports.Delivery) *transports.Delivery {
	s.Helper()
	select {
	case d := <-taken:
		return d
	case <-time.After(patience):
		s.Fatalf("waited %s for a message", patience)
		return nil
	}
}

func TestAServerThatIsKilled(t *testing.T) {
	s := newServer(t)
	tr, taken := s.open(&Config{URL: s.url(), Subscriptions: 1})
	sick := func() bool {
		return slices.ContainsFunc(tr.Health(), func(h transports.Health) bool { return h.Err != nil })
	}
	s.add("commands", "zero")
	s.next(taken).Settle(&transports.Outcome{Code: 200})
	s.until("the message is acked", s.acked)
	s.stop()
	s.until("the health has an error", sick)
	s.start()
	s.until("the health has no error", func() bool { return !sick() })

	// A message in flight isn't lost either. Its ack is sent late, or the message is redelivered.
	s.add("commands", "one", "two")
	one := s.next(taken)
	s.stop()
	one.Settle(&transports.Outcome{Code: 200})
	s.start()
	got := map[string]bool{string(one.Payload): true}
	for len(got) < 2 {
		d := s.next(taken)
		got[string(d.Payload)] = true
		d.Settle(&transports.Outcome{Code: 200})
	}
	s.until("all messages are acked", s.acked)
}

// After a restart, a host gets its unacked messages again, in order and before newer messages.
func TestARestartGoesOnWhereItWas(t *testing.T) {
	s := newServer(t)
	first, taken := s.open(&Config{URL: s.url(), Subscriptions: 1})
	s.add("commands", "one", "two", "three")
	s.next(taken).Settle(&transports.Outcome{Code: 200})
	if d := s.next(taken); string(d.Payload) != "two" {
		t.Fatalf("%q after the first message", d.Payload)
	}
	s.close(first)
	_, taken = s.open(&Config{URL: s.url(), Subscriptions: 1})
	s.add("commands", "four")
	for _, want := range []string{"two", "three", "four"} {
		d := s.next(taken)
		if string(d.Payload) != want {
			t.Errorf("%q, want %q", d.Payload, want)
		}
		d.Settle(&transports.Outcome{Code: 200})
	}
}

func TestSeveralSubscriptionsShareTheMessages(t *testing.T) {
	const n, messages = 4, 200
	s := newServer(t)
	_, taken := s.open(&Config{URL: s.url(), Subscriptions: n})
	var all []string
	for i := range messages {
		all = append(all, fmt.Sprint(i))
	}
	s.add("commands", all...)
	seen := map[string]bool{}
	next := func() *transports.Delivery {
		d := s.next(taken)
		if seen[string(d.Payload)] {
			t.Fatalf("%q came twice", d.Payload)
		}
		seen[string(d.Payload)] = true
		return d
	}
	// Now each subscription has one unsettled message. Check this first: later, one subscription
	// may read the last messages before the others can.
	var unsettled []*transports.Delivery
	for range n {
		unsettled = append(unsettled, next())
	}
	for _, d := range unsettled {
		d.Settle(&transports.Outcome{Code: 200})
	}
	for len(seen) < messages {
		next().Settle(&transports.Outcome{Code: 200})
	}
}

func TestAnyEntryIsAMessage(t *testing.T) {
	s := newServer(t)
	_, taken := s.open(&Config{URL: s.url(), Subscriptions: 1})
	for _, values := range [][]string{{"nonsense", "1"}, {payloadField, "\x00\xff"}, {"message_id", ""}, {payloadField, "last", "type", "test", "site", "a"}} {
		if err := s.client.XAdd(t.Context(), &redis.XAddArgs{Stream: "commands", Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	var last *transports.Delivery
	for range 4 {
		last = s.next(taken)
		last.Settle(&transports.Outcome{Code: 200})
	}
	if string(last.Payload) != "last" || last.Metadata["type"] != "test" || last.Metadata["header.site"] != "a" || last.UUID == "" {
		t.Errorf("%q %v", last.Payload, last.Metadata)
	}
}

func TestABadURL(t *testing.T) {
	for _, url := range []transports.Secret{"http://x", "redis://user:hunter2@host:63x9", "redis://user:hunter2%zz@host"} {
		if _, err := (&Config{URL: url}).New(transports.Env{}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", string(url), err)
		}
	}
	if _, err := (&Config{}).Topic("", transports.Return); err == nil {
		t.Errorf("returning: %v", err)
	}
}

func TestWhatIsSentInTheClear(t *testing.T) {
	for url, risky := range map[transports.Secret]bool{
		"redis://user:hunter2@redis.internal:6379/0": true, "redis://10.0.0.7": true,
		"rediss://user:hunter2@redis.internal": false, "redis://localhost:6379": false, "redis://[::1]": false, "unix:///run/redis.sock": false, "redis://%zz": false,
	} {
		if risks := (&Config{URL: url}).Risks(); (len(risks) > 0) != risky || strings.Contains(risks["url"], "hunter2") {
			t.Errorf("%s: %q", string(url), risks)
		}
	}
}
