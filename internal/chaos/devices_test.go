package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fleet is a set of simulated devices, each with its own address, that record on disk what they
// read.
type fleet struct {
	addr   string
	record *os.File
	work   sync.WaitGroup
	stop   context.CancelFunc

	mu      sync.Mutex
	devices []*fakeDevice
	reads   []Read
	answers []Answer
	pending []Read // read and not yet on disk
	err     error
}

// fakeDevice is one device of a fleet.
type fakeDevice struct {
	address string

	mu          sync.Mutex
	connections int
	looks       int // at two connections at once; for its own goroutine
	// wire is the newest connection, nil if there is none. next is a second one, as long as the
	// device hasn't turned to it.
	wire, next *wire
	reading    chan struct{} // closed while it reads
	present    chan struct{} // closed while it wants to be connected
}

// wire is a device's end of one connection.
type wire struct {
	*net.TCPConn
	number int
	rest   []byte // of a line whose end isn't here yet
}

func startFleet(t *testing.T, addr, folder string, n int) *fleet {
	record, err := os.Create(folder + "/record.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &fleet{addr: addr, record: record, stop: stop}
	for i := range n {
		d := &fakeDevice{address: deviceAddress(i), reading: make(chan struct{}), present: make(chan struct{})}
		close(d.reading)
		close(d.present)
		f.devices = append(f.devices, d)
		f.work.Go(func() { f.runDevice(ctx, d) })
	}
	f.work.Go(func() { f.sync(ctx) })
	return f
}

func deviceAddress(i int) string { return fmt.Sprintf("127.2.%d.%d", i/250, i%250+1) }

// runDevice keeps the device connected until the context ends.
func (f *fleet) runDevice(ctx context.Context, d *fakeDevice) {
	for ctx.Err() == nil {
		select {
		case <-d.whenPresent():
		case <-ctx.Done():
			return
		}
		if err := f.dial(ctx, d); err != nil {
			pause(ctx, 50*time.Millisecond+rand.N(100*time.Millisecond))
			continue
		}
		end := context.AfterFunc(ctx, d.close)
		for w := d.switchConnection(); w != nil; w = d.switchConnection() {
			f.read(ctx, d, w)
		}
		end()
	}
}

// dial opens a new connection of the device, in addition to one that it may have.
func (f *fleet) dial(ctx context.Context, d *fakeDevice) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(d.address)}, Timeout: time.Second, Control: setSmallReadBuffer}
	conn, err := dialer.DialContext(ctx, "tcp4", f.addr)
	if err != nil {
		return err
	}
	// A connection that has sent nothing would replace no session. An empty frame answers nothing.
	if _, err := conn.Write([]byte("\n")); err != nil {
		conn.Close()
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.next != nil {
		d.next.Close()
	}
	d.connections++
	d.next = &wire{TCPConn: conn.(*net.TCPConn), number: d.connections}
	if d.wire != nil {
		_ = d.wire.SetReadDeadline(expiredDeadline) // wakes the reader
	}
	return nil
}

// expiredDeadline is a deadline in the past.
var expiredDeadline = time.Unix(1, 0)

// switchConnection closes the device's connection and returns the next one, or nil.
func (d *fakeDevice) switchConnection() *wire {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wire != nil {
		d.wire.Close()
	}
	d.wire, d.next = d.next, nil
	return d.wire
}

// read records the lines of a connection until it is lost, or until the device has a second one.
func (f *fleet) read(ctx context.Context, d *fakeDevice, w *wire) {
	for {
		d.mu.Lock()
		next := d.next
		if next == nil {
			_ = w.SetReadDeadline(time.Time{})
		}
		d.mu.Unlock()
		if next != nil {
			f.readBoth(ctx, d, w, next)
			return
		}
		lines, err := w.readLines()
		f.recordLines(ctx, d, w, 0, lines)
		if err != nil {
			return
		}
	}
}

// readBoth records the lines of two connections for a while. Lines of the second connection are
// recorded only after everything that was available on the first: the host wrote the first one
// first. A line that reaches the first connection after the second was read may be newer; it
// belongs to the same look.
func (f *fleet) readBoth(ctx context.Context, d *fakeDevice, first, second *wire) {
	const while = 300 * time.Millisecond
	for end := time.Now().Add(while); time.Now().Before(end); {
		d.looks++
		_ = second.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		newer, err := second.readLines()
		for older := []string{""}; len(older) > 0; {
			_ = first.SetReadDeadline(time.Now().Add(time.Millisecond))
			older, _ = first.readLines() // the host ends it, now or later
			f.recordLines(ctx, d, first, d.looks, older)
		}
		f.recordLines(ctx, d, second, d.looks, newer)
		if err != nil {
			return // the next read finds it too
		}
	}
}

// readLines reads once and returns the complete lines. A deadline isn't an error.
func (w *wire) readLines() (lines []string, err error) {
	buf := make([]byte, 4096)
	n, err := w.Read(buf)
	w.rest = append(w.rest, buf[:n]...)
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole {
			break
		}
		lines, w.rest = append(lines, strings.TrimSuffix(string(line), "\r")), rest
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return lines, err
}

// recordLines records lines that a look found, and answers requests. The lines count as read even
// if the connection is lost then.
func (f *fleet) recordLines(ctx context.Context, d *fakeDevice, w *wire, look int, lines []string) {
	for _, text := range lines {
		line := parseLine(text)
		f.mu.Lock()
		f.pending = append(f.pending, Read{ID: line.id, Device: d.address, Connection: w.number, Time: time.Now(), Look: look})
		f.mu.Unlock()
		d.mu.Lock()
		reading := d.reading
		d.mu.Unlock()
		<-reading
		f.answerLine(ctx, d, w, line)
	}
}

// sync writes the recorded lines to the disk, many at a time.
func (f *fleet) sync(ctx context.Context) {
	for {
		last := ctx.Err() != nil
		f.mu.Lock()
		batch := f.pending
		f.pending = nil
		f.mu.Unlock()
		if len(batch) > 0 {
			var text []byte
			for _, r := range batch {
				line, _ := json.Marshal(r) // strings and a time always work
				text = append(append(text, line...), '\n')
			}
			_, err := f.record.Write(text)
			if err == nil {
				err = f.record.Sync()
			}
			f.mu.Lock()
			f.reads = append(f.reads, batch...)
			if err != nil && f.err == nil {
				f.err = err
			}
			f.mu.Unlock()
		}
		if last {
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// drawDevices returns n random devices.
func (f *fleet) drawDevices(rng *rand.Rand, n int) []*fakeDevice {
	all := slices.Clone(f.devices)
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(n, len(all))]
}

func addressesOf(devices []*fakeDevice) []string {
	var all []string
	for _, d := range devices {
		all = append(all, d.address)
	}
	return all
}

// pauseReading makes the device stop reading until the returned function is called.
func (d *fakeDevice) pauseReading() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	reading := make(chan struct{})
	d.reading = reading
	return func() { close(reading) }
}

// disconnect takes the device offline until the returned function is called.
func (d *fakeDevice) disconnect() (back func()) {
	away := make(chan struct{})
	d.mu.Lock()
	d.present = away
	d.mu.Unlock()
	d.reset()
	return func() { close(away) }
}

// whenPresent returns a channel that is closed while the device may connect.
func (d *fakeDevice) whenPresent() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.present
}

// reset aborts the device's connection. Bytes on their way are lost.
func (d *fakeDevice) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wire != nil {
		_ = d.wire.SetLinger(0)
		d.wire.Close()
	}
}

// close closes the device's connections.
func (d *fakeDevice) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range []*wire{d.wire, d.next} {
		if w != nil {
			w.Close()
		}
	}
}

// online returns the addresses of the connected devices.
func (f *fleet) online() []string {
	var all []string
	for _, d := range f.devices {
		d.mu.Lock()
		if d.wire != nil {
			all = append(all, d.address)
		}
		d.mu.Unlock()
	}
	return all
}

// stopAll disconnects all devices and returns what they read and answered.
func (f *fleet) stopAll(t *testing.T) ([]Read, []Answer) {
	f.stop()
	f.work.Wait()
	if err := f.record.Close(); err != nil || f.err != nil {
		t.Fatalf("recording: %v, %v", f.err, err)
	}
	return f.reads, f.answers
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
