package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/memory"
)

// The load of BenchmarkExpr.
const (
	exprSmall, exprLarge       = 200, 64 << 10
	exprSmallRuns, exprLargeOf = 40_000, 2_000
	exprPairs                  = 5
)

// BenchmarkExpr carries messages from a memory topic through a handler to another one, and reports what a filter costs beside passthrough: CPU of
// the process a message, the median of several pairs. For large payloads its peer is json.Unmarshal of the same.
func BenchmarkExpr(b *testing.B) {
	const (
		none     = `"passthrough"`
		metadata = `{ type = "expr", when = 'meta.type == "data" and device startsWith "10."' }`
		fields   = `{ type = "expr", when = 'json.temp > 30 and json.site == "north"' }`
	)
	for _, c := range []struct {
		name, handler string
		size, n       int
	}{
		{"metadata/200B", metadata, exprSmall, exprSmallRuns},
		{"payload/200B", fields, exprSmall, exprSmallRuns},
		{"payload/64KiB", fields, exprLarge, exprLargeOf},
	} {
		b.Run(c.name, func(b *testing.B) {
			payload := exprPayload(c.size)
			for b.Loop() {
				var costs, ratios []float64
				for range exprPairs {
					bare, filter := carry(b, none, payload, c.n), carry(b, c.handler, payload, c.n)
					decode := cpu(b, func() {
						for range c.n {
							var v any
							must(b, json.Unmarshal(payload, &v))
						}
					})
					costs, ratios = append(costs, (filter-bare).Seconds()*1e6/float64(c.n)), append(ratios, (filter-bare).Seconds()/decode.Seconds())
				}
				slices.Sort(costs)
				slices.Sort(ratios)
				b.ReportMetric(costs[len(costs)/2], "us/message")
				b.ReportMetric(ratios[len(ratios)/2], "filter/decode")
			}
		})
	}
}

func exprPayload(size int) []byte {
	head, tail := `{"device":"10.0.0.7","temp":31.5,"readings":[`, `0],"site":"north"}`
	reading := `{"id":17,"name":"sensor","value":3.25,"ok":true},`
	return []byte(head + strings.Repeat(reading, (size-len(head)-len(tail))/len(reading)) + tail)
}

// carry sends n messages through a handler, and returns the CPU time that the process took.
func carry(b *testing.B, handler string, payload []byte, n int) time.Duration {
	b.Helper()
	ends := &ends{}
	set := plugin.Registered()
	set.Register("transport", plugin.Info{Name: "ends", Summary: "Memory.", New: func() any { return ends }, Extra: transports.Plugin{}})
	c, _, err := configs.Parse("expr.toml", fmt.Appendf(nil, `
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
	must(b, err)
	c.Router.Logger = slog.New(slog.DiscardHandler)
	host, err := router.New(c.Router)
	must(b, err)
	sub, err := ends.Subscriber(transports.Consumer{Pipeline: "bench"})
	must(b, err)
	out, err := sub.Subscribe(b.Context(), "out")
	must(b, err)
	must(b, host.Start(b.Context()))
	pub, err := ends.Publisher(transports.Producer{})
	must(b, err)
	took := cpu(b, func() {
		go func() {
			for i := range n {
				msg := message.NewMessage(fmt.Sprint(i), payload)
				msg.Metadata = message.Metadata{"type": "data", "device": fmt.Sprint("10.0.0.", i%100)}
				if err := pub.Publish("in", msg); err != nil {
					b.Error(err)
					return
				}
			}
		}()
		for range n {
			(<-out).Ack()
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), benchDeadline)
	defer cancel()
	must(b, sub.Close())
	must(b, host.Stop(ctx))
	return took
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

// cpu is the time that the process computes while it does something.
func cpu(b *testing.B, do func()) time.Duration {
	b.Helper()
	used := func() time.Duration {
		var u unix.Rusage
		must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	do()
	return used() - before
}
