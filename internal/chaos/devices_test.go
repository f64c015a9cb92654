package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// fleet is fake devices, each at an address of its own, that record on disk what they read.
type fleet struct {
	addr   string
	record *os.File
	work   sync.WaitGroup
	stop   context.CancelFunc

	mu      sync.Mutex
	devices []*fakeDevice
	reads   []Read
	pending []Read // read and not yet on disk
	err     error
}

// fakeDevice is one of them.
type fakeDevice struct {
	address string

	mu          sync.Mutex
	conn        net.Conn
	connections int
	reading     chan struct{} // closed while it reads
}

func startFleet(t *testing.T, addr, folder string, n int) *fleet {
	record, err := os.Create(folder + "/record.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &fleet{addr: addr, record: record, stop: stop}
	for i := range n {
		d := &fakeDevice{address: deviceAddress(i), reading: make(chan struct{})}
		close(d.reading)
		f.devices = append(f.devices, d)
		f.work.Go(func() { f.live(ctx, d) })
	}
	f.work.Go(func() { f.sync(ctx) })
	return f
}

func deviceAddress(i int) string { return fmt.Sprintf("127.2.%d.%d", i/250, i%250+1) }

// live connects again and again.
func (f *fleet) live(ctx context.Context, d *fakeDevice) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(d.address)}, Timeout: time.Second}
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp4", f.addr)
		if err != nil {
			pause(ctx, 50*time.Millisecond+rand.N(100*time.Millisecond))
			continue
		}
		d.mu.Lock()
		d.connections++
		d.conn = conn
		number := d.connections
		d.mu.Unlock()
		end := context.AfterFunc(ctx, func() { conn.Close() })
		f.read(d, number, conn)
		end()
		conn.Close()
		d.mu.Lock()
		d.conn = nil
		d.mu.Unlock()
	}
}

// read records the lines of one connection. What it has read it has read, even if the connection is then lost.
func (f *fleet) read(d *fakeDevice, connection int, conn net.Conn) {
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		r := Read{ID: lines.Text(), Device: d.address, Connection: connection, Time: time.Now()}
		f.mu.Lock()
		f.pending = append(f.pending, r)
		f.mu.Unlock()
		d.mu.Lock()
		reading := d.reading
		d.mu.Unlock()
		<-reading
	}
}

// sync writes what was read to the disk, many lines at a time.
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

// some returns n devices drawn by rng.
func (f *fleet) some(rng *rand.Rand, n int) []*fakeDevice {
	all := slices.Clone(f.devices)
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(n, len(all))]
}

func names(devices []*fakeDevice) []string {
	var all []string
	for _, d := range devices {
		all = append(all, d.address)
	}
	return all
}

// hold has the device stop reading; the returned function has it go on.
func (d *fakeDevice) hold() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	reading := make(chan struct{})
	d.reading = reading
	return func() { close(reading) }
}

// reset ends the device's connection without a farewell: what is on its way is lost.
func (d *fakeDevice) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
		c.Close()
	}
}

// online is the addresses of those that are connected.
func (f *fleet) online() []string {
	var all []string
	for _, d := range f.devices {
		d.mu.Lock()
		if d.conn != nil {
			all = append(all, d.address)
		}
		d.mu.Unlock()
	}
	return all
}

// end disconnects all and returns what they read.
func (f *fleet) end(t *testing.T) []Read {
	f.stop()
	f.work.Wait()
	if err := f.record.Close(); err != nil || f.err != nil {
		t.Fatalf("recording: %v, %v", f.err, err)
	}
	return f.reads
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
