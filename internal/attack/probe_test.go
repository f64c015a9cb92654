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

// The rates of the probes.
const (
	commandEvery  = 40 * time.Millisecond
	livezEvery    = 200 * time.Millisecond
	newcomerEvery = 500 * time.Millisecond
	// retryAfter is how long an honest caller or device waits before it retries.
	retryAfter = 100 * time.Millisecond
	// atATime is how many commands are sent at the same time. Further ones wait, and the wait
	// counts.
	atATime = 50
)

const honestDevice = "honest"

// sample says when an action began and how long it took. If the action failed, or hadn't finished
// when the probes stopped, it is lost: it took at least that long.
type sample struct {
	at   time.Time
	took time.Duration
	lost bool
}

// series has the samples of one kind of action.
type series struct {
	mu      sync.Mutex
	samples []sample
}

// add adds the sample of an action that ends now.
func (s *series) add(at time.Time, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = append(s.samples, sample{at, time.Since(at), lost})
}

// between returns the samples of actions that began in a period.
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

// firstAfter returns how long after a time the first action that began later had finished.
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

// percentile returns the shortest time that p percent of the samples don't exceed. It returns 0 if
// there are no samples.
func (f figures) percentile(p float64) time.Duration {
	if len(f.took) == 0 {
		return 0
	}
	return f.took[max(0, int(math.Ceil(p/100*float64(len(f.took))))-1)]
}

// probes are honest users of a target: a device that receives commands at a steady rate, devices
// that connect, and a caller of /livez.
type probes struct {
	to      endpoints
	send    func(ctx context.Context, id, name, cmd string) bool
	stop    context.CancelFunc
	running sync.WaitGroup
	sending chan struct{} // limits the commands that are sent at the same time

	// read is the time from the first attempt to send a command until the device read it.
	// result is the time until its sender knew the result.
	read, result, livez, newcomers series

	mu sync.Mutex
	// waiting has the callers that wait until the honest device reads a command. results has the
	// callers that wait for a result from the broker.
	waiting map[string]chan struct{}
	results map[string]chan bool
}

// startProbes starts the probes. It returns when the honest device has read a command.
func startProbes(t *testing.T, g *target, byBroker bool) *probes {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	p := &probes{to: g.endpoints, stop: stop, sending: make(chan struct{}, atATime), waiting: map[string]chan struct{}{}, results: map[string]chan bool{}}
	p.send = p.sendByWeb
	if byBroker && g.AMQP != "" {
		p.useBroker(t)
	}
	t.Cleanup(p.stopAll)
	p.running.Go(func() { p.beDevice(ctx) })
	first, done := context.WithTimeout(ctx, await.Patience)
	defer done()
	if p.sendCommand(first, 0); first.Err() != nil {
		t.Fatalf("waited %s until the honest device was sent a command", await.Patience)
	}
	p.callAtRate(ctx, commandEvery, p.sendCommand)
	p.callAtRate(ctx, livezEvery, p.askLivez)
	p.callAtRate(ctx, newcomerEvery, p.connectNewcomer)
	return p
}

// stopAll stops the probes and waits for them.
func (p *probes) stopAll() {
	p.stop()
	p.running.Wait()
}

// callAtRate calls do at a steady rate, without waiting for earlier calls.
func (p *probes) callAtRate(ctx context.Context, interval time.Duration, do func(ctx context.Context, n int)) {
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

// sendCommand sends a command to the honest device. It repeats that until the target has taken the
// command, and waits until the device has read it.
func (p *probes) sendCommand(ctx context.Context, n int) {
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

// beDevice is the honest device. It reads, and connects again after a loss.
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

// connect connects a device that sends its name.
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

// connectNewcomer connects a new honest device. It repeats that until the device has received a
// command.
func (p *probes) connectNewcomer(ctx context.Context, n int) {
	at := time.Now()
	for try := 0; ctx.Err() == nil; try++ {
		if p.reachNewcomer(ctx, fmt.Sprintf("new-%d", n), try, net.IPv4(127, 8, byte(n>>8), byte(n))) {
			p.newcomers.add(at, false)
			return
		}
		pause(ctx, retryAfter)
	}
	p.newcomers.add(at, true)
}

// reachNewcomer connects a device and reports whether a command reached it.
func (p *probes) reachNewcomer(ctx context.Context, name string, try int, from net.IP) bool {
	conn, err := connect(ctx, p.to.Devices, from, name)
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	lines := bufio.NewReader(conn)
	for again := 0; ctx.Err() == nil; again++ {
		if p.send(ctx, fmt.Sprintf("%s.%d.%d", name, try, again), name, "welcome") {
			// If the connection is closed, the read below fails.
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
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

// useBroker makes the probes send commands through the broker.
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
