package attack

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

// How often the probes ask.
const (
	commandEvery  = 40 * time.Millisecond
	livezEvery    = 200 * time.Millisecond
	newcomerEvery = 500 * time.Millisecond
	// retryAfter is how long an honest caller or device waits before it tries again.
	retryAfter = 100 * time.Millisecond
	// atATime is how many commands are being sent; further ones wait, and that counts.
	atATime = 50
)

const honestDevice = "honest"

// sample is how long something took that began at a time. What failed, or wasn't finished when the
// probes ended, is lost; it took at least so long.
type sample struct {
	at   time.Time
	took time.Duration
	lost bool
}

// series is samples of one kind.
type series struct {
	mu      sync.Mutex
	samples []sample
}

// add ends a sample.
func (s *series) add(at time.Time, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = append(s.samples, sample{at, time.Since(at), lost})
}

// between returns the samples that began from a time on and before another one.
func (s *series) between(from, to time.Time) figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	var f figures
	for _, x := range s.samples {
		if !x.at.Before(from) && x.at.Before(to) {
			f.took = append(f.took, x.took)
			if x.lost {
				f.lost++
			}
		}
	}
	slices.Sort(f.took)
	return f
}

// firstAfter returns how long after a time the first one of what began later was finished.
func (s *series) firstAfter(from time.Time) (after time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	after = math.MaxInt64
	for _, x := range s.samples {
		if !x.at.Before(from) && !x.lost {
			after = min(after, x.at.Add(x.took).Sub(from))
		}
	}
	return after, after < math.MaxInt64
}

// figures are the times of some samples, the shortest first.
type figures struct {
	took []time.Duration
	lost int
}

// percentile returns the shortest time that p percent of the samples don't exceed; 0 without any.
func (f figures) percentile(p float64) time.Duration {
	if len(f.took) == 0 {
		return 0
	}
	return f.took[max(0, int(math.Ceil(p/100*float64(len(f.took))))-1)]
}

// probes are honest users of a target: a device that is sent commands at a steady rate, devices
// that connect, and somebody who asks for /livez.
type probes struct {
	to      endpoints
	send    func(ctx context.Context, id, name, cmd string) bool
	stop    context.CancelFunc
	running sync.WaitGroup
	sending chan struct{} // has room for those that are being sent

	// read is from the first attempt to send a command until the device had it, result until its
	// sender knew what became of it.
	read, result, livez, newcomers series

	mu sync.Mutex
	// waiting has those who wait until the honest device reads a command, and those who wait for a
	// result from the broker.
	waiting map[string]chan struct{}
	results map[string]chan bool
}

// startProbes starts them, and returns when the honest device has read a command.
func startProbes(t *testing.T, g *target, byBroker bool) *probes {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	p := &probes{to: g.endpoints, stop: stop, sending: make(chan struct{}, atATime), waiting: map[string]chan struct{}{}, results: map[string]chan bool{}}
	p.send = p.sendByWeb
	if byBroker && g.AMQP != "" {
		p.useBroker(t)
	}
	t.Cleanup(p.end)
	p.running.Go(func() { p.beDevice(ctx) })
	first, done := context.WithTimeout(ctx, await.Patience)
	defer done()
	if p.command(first, 0); first.Err() != nil {
		t.Fatalf("waited %s until the honest device was sent a command", await.Patience)
	}
	p.every(ctx, commandEvery, p.command)
	p.every(ctx, livezEvery, p.askLivez)
	p.every(ctx, newcomerEvery, p.arrive)
	return p
}

// end stops the probes and waits for them.
func (p *probes) end() {
	p.stop()
	p.running.Wait()
}

// every calls do at a steady rate, however long it takes.
func (p *probes) every(ctx context.Context, interval time.Duration, do func(ctx context.Context, n int)) {
	p.running.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-tick.C:
				p.running.Go(func() { do(ctx, n) })
			case <-ctx.Done():
				return
			}
		}
	})
}

// command sends a command to the honest device, again and again until the target took it, and waits
// until it was read.
func (p *probes) command(ctx context.Context, n int) {
	at, cmd := time.Now(), fmt.Sprintf("c-%d", n)
	read := make(chan struct{})
	p.mu.Lock()
	p.waiting[cmd] = read
	p.mu.Unlock()
	p.running.Go(func() {
		select {
		case <-read:
			p.read.add(at, false)
		case <-ctx.Done():
			p.read.add(at, true)
		}
	})
	select {
	case p.sending <- struct{}{}:
		defer func() { <-p.sending }()
	case <-ctx.Done():
		p.result.add(at, true)
		return
	}
	for try := 0; !p.send(ctx, fmt.Sprintf("%s.%d", cmd, try), honestDevice, cmd); try++ {
		pause(ctx, retryAfter)
		if ctx.Err() != nil {
			p.result.add(at, true)
			return
		}
	}
	p.result.add(at, false)
}

// beDevice is the honest device: it reads, and connects again when it lost its connection.
func (p *probes) beDevice(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, retryAfter) {
		conn, err := connect(ctx, p.to.Devices, net.IPv4(127, 8, 255, 1), honestDevice)
		if err != nil {
			continue
		}
		end := context.AfterFunc(ctx, func() { conn.Close() })
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			p.mu.Lock()
			if read := p.waiting[lines.Text()]; read != nil {
				close(read)
				delete(p.waiting, lines.Text())
			}
			p.mu.Unlock()
		}
		end()
		conn.Close()
	}
}

// connect connects a device, which says its name.
func connect(ctx context.Context, to string, from net.IP, name string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	conn, err := d.DialContext(ctx, "tcp4", to)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, hello, name); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// arrive connects an honest device that wasn't there before, again and again until it was sent a
// command.
func (p *probes) arrive(ctx context.Context, n int) {
	at := time.Now()
	for try := 0; ctx.Err() == nil; try++ {
		if p.served(ctx, fmt.Sprintf("new-%d", n), try, net.IPv4(127, 8, byte(n>>8), byte(n))) {
			p.newcomers.add(at, false)
			return
		}
		pause(ctx, retryAfter)
	}
	p.newcomers.add(at, true)
}

// served connects a device and reports whether a command reached it.
func (p *probes) served(ctx context.Context, name string, try int, from net.IP) bool {
	conn, err := connect(ctx, p.to.Devices, from, name)
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	lines := bufio.NewReader(conn)
	for again := 0; ctx.Err() == nil; again++ {
		if p.send(ctx, fmt.Sprintf("%s.%d.%d", name, try, again), name, "welcome") {
			_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // the read says if the connection is closed
			_, err := lines.ReadString('\n')
			return err == nil
		}
		// The target may not know the device yet, or may have closed its connection.
		_ = conn.SetReadDeadline(time.Now().Add(retryAfter))
		if _, err := lines.Peek(1); err != nil {
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				return false
			}
		}
	}
	return false
}

func (p *probes) askLivez(ctx context.Context, _ int) {
	at := time.Now()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.to.Admin+"/livez", http.NoBody)
	if err != nil {
		return
	}
	answer, err := caller.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			err = errors.New(answer.Status)
		}
	}
	p.livez.add(at, err != nil)
}

func commandBody(id, name, cmd string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"device":%q,"cmd":%q}`, id, name, cmd)
}

// sendByWeb posts a command and reports whether it was sent to the device.
func (p *probes) sendByWeb(ctx context.Context, id, name, cmd string) bool {
	status, err := post(ctx, p.to, "/commands", commandBody(id, name, cmd))
	return err == nil && status < 300
}

// useBroker has commands be sent through the broker from now on.
func (p *probes) useBroker(t *testing.T) {
	t.Helper()
	conn, err := amqp.Dial(p.to.AMQP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	results, err := ch.Consume(resultsQueue, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.running.Go(func() {
		for m := range results {
			var r device.Result
			if json.Unmarshal(m.Body, &r) != nil {
				continue
			}
			p.mu.Lock()
			if c := p.results[r.ID]; c != nil {
				c <- r.State == device.StateSent
				delete(p.results, r.ID)
			}
			p.mu.Unlock()
		}
	})
	stop := p.stop
	p.stop = func() {
		stop()
		conn.Close()
	}
	var publishing sync.Mutex
	p.send = func(ctx context.Context, id, name, cmd string) bool {
		c := make(chan bool, 1)
		p.mu.Lock()
		p.results[id] = c
		p.mu.Unlock()
		publishing.Lock()
		err := ch.PublishWithContext(ctx, "", commandsQueue, false, false, amqp.Publishing{Body: commandBody(id, name, cmd)})
		publishing.Unlock()
		if err != nil {
			return false
		}
		select {
		case sent := <-c:
			return sent
		case <-ctx.Done():
			return false
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
