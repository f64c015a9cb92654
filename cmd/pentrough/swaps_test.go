package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pentrough/pentrough/handlers/serve"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// swapsEnv is how many swaps TestSwaps does instead of those that are enough each time.
const swapsEnv = "PENTROUGH_SWAPS"

// passer is the program of a plugin that passes messages on.
func passer() { serve.Main("passthrough") }

// While a host swaps its plugin's process again and again, each message comes out once, and those
// of each device in order.
func TestSwaps(t *testing.T) {
	t.Parallel()
	swaps := 15
	if n, err := strconv.Atoi(os.Getenv(swapsEnv)); err == nil {
		swaps = n
	}
	e := betweenEnds(t, `{ type = "process", command = ["passer"] }`)
	ctx, cancel := context.WithCancel(t.Context())
	const devices = 100
	sent := make(chan int, 1)
	go func() {
		n := 0
		defer func() { sent <- n }()
		for ; ctx.Err() == nil; n++ {
			if err := e.send(fmt.Sprint(n), fmt.Sprint("d", n%devices), fmt.Append(nil, n)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var read atomic.Int64
	over := make(chan struct{})
	go func() {
		defer close(over)
		var next [devices]int
		for msg := range e.out {
			i, err := strconv.Atoi(string(msg.Payload))
			if err != nil {
				t.Error(err)
			}
			if want := next[i%devices]*devices + i%devices; i != want {
				t.Errorf("%d came where %d was to come", i, want)
			}
			next[i%devices]++
			read.Add(1)
			msg.Ack()
		}
	}()
	begun := time.Now()
	for range swaps {
		if err := e.host.Reload(t.Context()); err != nil {
			t.Error(err)
		}
	}
	took := time.Since(begun)
	cancel()
	n := <-sent
	await.That(t, fmt.Sprintf("%d messages come out", n), func() (any, bool) {
		got := read.Load()
		return got, got >= int64(n)
	})
	e.stop(t)
	<-over
	if got := read.Load(); got != int64(n) {
		t.Errorf("%d messages went in, and %d came out", n, got)
	}
	t.Logf("%d swaps in %v, %d messages, each once and in order", swaps, took.Round(time.Millisecond), n)
}
