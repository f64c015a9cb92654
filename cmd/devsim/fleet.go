package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// dials is how many devices may dial at the same time.
const dials = 100

// fleet is all devices, with counters of what they did.
type fleet struct {
	options options
	stderr  io.Writer

	first                                       atomic.Int64 // devices that have connected
	connects, failures, lost, read, bytes, sent atomic.Int64

	mu        sync.Mutex
	record    *os.File
	recordErr error
}

// summary is what the program prints at the end.
type summary struct {
	Devices int `json:"devices"`
	// Connected is the number of devices that connected at least once. Connects is the number of
	// all connections.
	Connected int64 `json:"connected"`
	Connects  int64 `json:"connects"`
	// FailedDials is the number of failed attempts to connect. Lost is the number of connections
	// that ended before the program did.
	FailedDials int64   `json:"failed_dials"`
	Lost        int64   `json:"lost"`
	LinesRead   int64   `json:"lines_read"`
	BytesRead   int64   `json:"bytes_read"`
	LinesSent   int64   `json:"lines_sent"`
	Seconds     float64 `json:"seconds"`
}

// run runs the devices until ctx ends or until no device is left.
func (f *fleet) run(ctx context.Context) summary {
	began := time.Now()
	turns := make(chan struct{}, dials)
	var devices sync.WaitGroup
	addr := f.options.from
	for i := range f.options.n {
		d := &device{fleet: f, turns: turns, from: addr, id: addr.String(), silent: i < f.options.silent}
		if !addr.IsValid() {
			d.id = fmt.Sprint("device-", i)
		}
		addr = next(addr)
		devices.Go(func() { d.live(ctx) })
	}
	devices.Wait()
	return summary{
		Devices: f.options.n, Connected: f.first.Load(), Connects: f.connects.Load(), FailedDials: f.failures.Load(), Lost: f.lost.Load(),
		LinesRead: f.read.Load(), BytesRead: f.bytes.Load(), LinesSent: f.sent.Load(), Seconds: time.Since(began).Round(time.Millisecond).Seconds(),
	}
}

func next(addr netip.Addr) netip.Addr {
	if !addr.IsValid() {
		return addr
	}
	return addr.Next()
}

// connected counts a connection. When every device has connected once, it says so on stderr.
func (f *fleet) connected(first bool) {
	f.connects.Add(1)
	if first && f.first.Add(1) == int64(f.options.n) {
		fmt.Fprintf(f.stderr, "devsim: all %d devices connected\n", f.options.n)
	}
}

// note appends lines to the file of -record.
func (f *fleet) note(lines []byte) {
	if f.record == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.record.Write(lines); err != nil && f.recordErr == nil {
		f.recordErr = err
	}
}
