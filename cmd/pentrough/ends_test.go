package main

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/memory"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// between is a host with one pipeline, from a memory topic to another, and a program's hands at
// both.
type between struct {
	host *router.Host
	pub  message.Publisher
	out  <-chan *message.Message
	done func() error
}

// betweenEnds starts a host whose pipeline has a handler, as TOML.
func betweenEnds(tb testing.TB, handler string) *between {
	tb.Helper()
	ends := &ends{}
	set := plugin.Registered()
	set.Register("transport", plugin.Info{Name: "ends", Summary: "Memory.", New: func() any { return ends }, Extra: transports.Plugin{}})
	c, _, err := configs.Parse("ends.toml", fmt.Appendf(nil, `
[host]
admin = ""
[transport.ends]
type = "ends"
[pipeline.p]
from = "ends:in"
to = "ends:out"
handler = %s
on_error = "drop"
`, handler), configs.Options{Plugins: set})
	must(tb, err)
	c.Router.Logger = slog.New(slog.DiscardHandler)
	host, err := router.New(c.Router)
	must(tb, err)
	sub, err := ends.Subscriber(transports.Consumer{Pipeline: "ends"})
	must(tb, err)
	out, err := transporttest.Stock(sub).Subscribe(context.Background(), "out")
	must(tb, err)
	must(tb, host.Start(tb.Context()))
	pub, err := ends.Publisher(transports.Producer{})
	must(tb, err)
	return &between{host, pub, out, sub.Close}
}

func (e *between) send(id, device string, payload []byte) error {
	msg := message.NewMessage(id, payload)
	msg.Metadata = message.Metadata{"type": "data", "device": device}
	return e.pub.Publish("in", msg)
}

func (e *between) stop(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), benchDeadline)
	defer cancel()
	must(tb, e.done())
	must(tb, e.host.Stop(ctx))
}

// ends is a memory transport that can be reached from outside of the host.
type ends struct{ transports.Transport }

func (e *ends) Topic(name string, use transports.Use) (transports.Topic, error) {
	return e.config().Topic(name, use)
}

func (e *ends) New(env transports.Env) (transports.Transport, error) {
	var err error
	e.Transport, err = e.config().New(env)
	return e.Transport, err
}

func (e *ends) config() *memory.Config { return &memory.Config{Buffer: 1000, Window: 1000} }
