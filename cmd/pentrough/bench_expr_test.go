package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The load of BenchmarkExpr.
const (
	exprSmall, exprLarge       = 200, 64 << 10
	exprSmallRuns, exprLargeOf = 40_000, 2_000
	exprPairs                  = 5
)

// BenchmarkExpr carries messages from a memory topic through a handler to another one, and reports
// what a filter costs in addition to passthrough: CPU of the process a message, the median of
// several pairs. For large payloads its peer is json.Unmarshal of the same.
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
	e := betweenEnds(b, handler)
	took := cpu(b, func() {
		go func() {
			for i := range n {
				if err := e.send(fmt.Sprint(i), fmt.Sprint("10.0.0.", i%100), payload); err != nil {
					b.Error(err)
					return
				}
			}
		}()
		for range n {
			(<-e.out).Ack()
		}
	})
	e.stop(b)
	return took
}

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
