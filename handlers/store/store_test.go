package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

func TestMain(m *testing.M) { await.Main(m) }

func config() *Config {
	c := defaults
	return &c
}

// poisoned returns a message from a poison queue.
func poisoned() *message.Message {
	msg := message.NewMessage("uuid", []byte("\x00\xff not JSON"))
	msg.Metadata = message.Metadata{
		transports.MessageID: "id", transports.CorrelationID: "c", "header.Own": "kept", "source.exchange": "pentrough", "source.routing_key": "commands.poison",
		transports.Redelivered: "true", "header.x-delivery-count": "1",
		"header.poison.cause": "no JSON", "header.poison.kind": "permanent", "header.poison.pipeline": "commands", "header.poison.handler": "deliver",
		"header.poison.from": "broker:commands", "header.poison.exchange": "device.commands", "header.poison.routing_key": "a.b",
		"header.poison.time": "2026-05-01T12:00:00.000000001Z", "header.poison.attempts": "6", "header.poison.expiration": "5000",
	}
	msg.SetContext(transports.WithHeaders(context.Background(), transports.KeptHeaders("typed")))
	return msg
}

func build(t *testing.T, h *handlertest.Host, c *Config) handlers.Handler {
	t.Helper()
	built := h.Build(c)
	t.Cleanup(func() {
		if err := built.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
	})
	return built
}

func TestDuties(t *testing.T) {
	handlertest.Run(t, func(t *testing.T) handlers.Handler { return handlertest.NewHost(t).Build(config()) }, poisoned(), handlers.NewMessage([]byte("x")))
}

func TestALetterIsTheMessageAsItWas(t *testing.T) {
	h := handlertest.NewHost(t)
	out, err := handlertest.Handle(t.Context(), build(t, h, config()), poisoned())
	if err != nil || len(out) != 0 {
		t.Fatal(out, err)
	}
	want := handlers.DeadLetter{
		Time: time.Date(2026, 5, 1, 12, 0, 0, 1, time.UTC), Cause: "no JSON", Kind: "permanent", Pipeline: "commands", Handler: "deliver", Attempts: 6,
		MessageID: "id", From: "broker:commands", Exchange: "device.commands", RoutingKey: "a.b", Body: []byte("\x00\xff not JSON"),
		Metadata: map[string]string{
			transports.MessageID: "id", transports.CorrelationID: "c", "header.Own": "kept", transports.Expiration: "5000", "header.x-delivery-count": "1",
		},
	}
	letters, limits := h.Letters()
	if diff := cmp.Diff([]handlers.DeadLetter{want}, letters); diff != "" {
		t.Error(diff)
	}
	if want := (handlers.DeadLetterLimits{Keeper: "test", Rows: 100_000, Age: 720 * time.Hour}); limits != want {
		t.Errorf("limits %+v", limits)
	}
}

func TestTypedHeadersGoAlong(t *testing.T) {
	if l := newLetter(poisoned()); string(l.Headers) != "typed" {
		t.Errorf("headers %q", l.Headers)
	}
}

func TestWhatNobodySaid(t *testing.T) {
	msg := message.NewMessage("uuid", []byte("x"))
	msg.Metadata = message.Metadata{"poison.cause": "through memory", "poison.attempts": "99999999999", "poison.time": "yesterday"}
	want := handlers.DeadLetter{Cause: "through memory", MessageID: "uuid", Metadata: map[string]string{}, Body: []byte("x")}
	if diff := cmp.Diff(want, newLetter(msg)); diff != "" {
		t.Error(diff)
	}
}

func TestABatchIsKeptTogether(t *testing.T) {
	h := handlertest.NewHost(t)
	s := build(t, h, config()).(handlers.BatchHandler)
	msgs := []*message.Message{poisoned(), handlers.NewMessage([]byte("a")), handlers.NewMessage([]byte("b"))}
	h.Outage(errors.New("the disk is full"))
	for _, o := range s.HandleBatch(t.Context(), msgs) {
		if handlers.KindOf(o.Err) != handlers.KindUnavailable || o.Err.Error() != "keeping dead letters: the disk is full" {
			t.Errorf("in an outage: %v", o.Err)
		}
	}
	h.Outage(nil)
	for _, o := range s.HandleBatch(t.Context(), msgs) {
		if o.Err != nil || o.Messages != nil {
			t.Errorf("%+v", o)
		}
	}
	if letters, _ := h.Letters(); len(letters) != 3 {
		t.Errorf("%d letters", len(letters))
	}
}

func TestWhatIsRemovedIsCountedAndToldOnce(t *testing.T) {
	h := handlertest.NewHost(t)
	var log bytes.Buffer
	env := h.Env()
	env.Logger = slog.New(slog.NewTextHandler(&log, nil))
	registry := prometheus.NewRegistry()
	env.Registerer = registry
	built, err := (&Config{MaxRows: 1, Keep: time.Hour}).New(env)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := built.Handle(poisoned()); err != nil {
			t.Fatal(err)
		}
	}
	if err := built.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "removed that nobody had replayed"); n != 1 {
		t.Errorf("told %d times: %s", n, &log)
	}
	want := `
# HELP pentrough_store_kept_total Messages that were stored as a row; a redelivered message counts again.
# TYPE pentrough_store_kept_total counter
pentrough_store_kept_total 3
# HELP pentrough_store_removed_total Rows removed because of max_rows and keep: settled (replayed or dropped), or open.
# TYPE pentrough_store_removed_total counter
pentrough_store_removed_total{state="open"} 2
pentrough_store_removed_total{state="settled"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// looks counts the removals of old rows.
type looks struct{ n chan int }

func (l looks) Keep(_ context.Context, letters []handlers.DeadLetter, _ handlers.DeadLetterLimits) (handlers.DeadLettersRemoved, error) {
	l.n <- len(letters)
	return handlers.DeadLettersRemoved{}, errors.New("away")
}

func TestRowsAreLookedAtWhileNothingComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := handlertest.NewHost(t).Env()
		seen := looks{make(chan int)}
		env.DeadLetters = seen
		built, err := config().New(env)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		for i := range 3 {
			if n := <-seen.n; n != 0 || time.Since(begun) != time.Duration(i)*cleanupInterval {
				t.Errorf("%d letters after %v", n, time.Since(begun))
			}
		}
		if err := built.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWithoutAPlace(t *testing.T) {
	env := handlertest.NewHost(t).Env()
	env.DeadLetters = nil
	if _, err := config().New(env); err == nil || !strings.Contains(err.Error(), `[store] type = "sqlite"`) {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	if err := config().Validate(); err != nil {
		t.Error(err)
	}
	err := (&Config{}).Validate()
	if err == nil || !strings.Contains(err.Error(), "max_rows: is 0") || !strings.Contains(err.Error(), "keep: is 0s") {
		t.Error(err)
	}
}
