package pubsub_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/pubsub"
)

// A goroutine of a stock part may outlive Close. What it logs then reaches nobody.
func TestAClosedPartLogsNothing(t *testing.T) {
	t.Parallel()
	log, given := &syncBuffer{}, make(chan watermill.LoggerAdapter, 2)
	r := &fake{publish: func([]*message.Message) error { return nil }}
	tr, err := pubsub.New(transports.Env{
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Now: time.Now,
	}, pubsub.PubSub{
		Subscriber: func(_ string, _ int, log watermill.LoggerAdapter) (message.Subscriber, error) {
			given <- log.With(watermill.LogFields{"part": "subscriber"})
			return part{r, "in"}, nil
		},
		Publisher: func(log watermill.LoggerAdapter) (message.Publisher, error) {
			given <- log
			return part{r, "out"}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, err := tr.Publisher(transports.Producer{Pipeline: "p", Topic: "t"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := tr.Subscriber(transports.Consumer{Pipeline: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Subscribe(t.Context(), "t", func(*transports.Delivery) {}); err != nil {
		t.Fatal(err)
	}
	parts := []watermill.LoggerAdapter{<-given, <-given}
	say := func(when string) {
		for _, part := range parts {
			part.Error(when+"-lost", errAway, nil)
			part.Error(when+"-cancelled", context.Canceled, nil)
			part.Info(when+"-info", nil)
			part.Debug(when+"-debug", nil)
			part.Trace(when+"-trace", nil)
		}
	}
	say("open")
	text := log.String()
	for line, n := range map[string]int{
		"level=ERROR msg=open-lost":      2,
		"level=DEBUG msg=open-cancelled": 2,
		"level=DEBUG msg=open-info":      2,
		"level=DEBUG msg=open-debug":     2,
		"part=subscriber":                4,
	} {
		if strings.Count(text, line) < n {
			t.Errorf("%q isn't in the log %d times:\n%s", line, n, text)
		}
	}
	await.That(t, "the publisher is in use", func() (any, bool) {
		err := out.Publish("t", message.NewMessage("1", nil))
		return err, err == nil
	})
	if err := tr.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	say("closed")
	if strings.Contains(log.String(), "closed-") {
		t.Errorf("logged after Close:\n%s", log.String())
	}
}
