package attack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// maxParallel is how many connections an attacker opens, or requests it sends, at the same time.
const maxParallel = 64

// tally has the attacker's counts.
type tally struct {
	// Opened is the number of connections that were made. Closed is the number of those that the
	// target closed before the attack's end. Failed is the number of connections and requests that
	// failed.
	Opened, Failed, Closed int
	// Published is the number of messages that the broker took.
	Published int
	// Status counts the answers to HTTP requests. Slowest is the time of the slowest one.
	Status  map[int]int
	Slowest time.Duration
	// Error says why the attack ended early.
	Error string
}

// attacker carries out one attack.
type attacker struct {
	order
	// begun is called when all connections, requests or messages of the attack exist. From then on
	// the attack goes on for the time of its order.
	begun func()

	mu    sync.Mutex
	tally tally
}

// beginTimeout is how long an attack may take to begin. A busy target accepts slowly.
const beginTimeout = 45 * time.Second

// runAttacker carries out an order, and prints the tally at the end.
func runAttacker(needs string) error {
	a := &attacker{tally: tally{Status: map[int]int{}}}
	if err := json.Unmarshal([]byte(needs), &a.order); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), beginTimeout+a.For)
	defer stop()
	a.begun = sync.OnceFunc(func() { time.AfterFunc(a.For, stop) })
	if err := attackNamed(a.Attack).run(ctx, a); err != nil && ctx.Err() == nil {
		a.tally.Error = err.Error()
	}
	a.begun()
	<-ctx.Done()
	return json.NewEncoder(os.Stdout).Encode(a.tally)
}

func (a *attacker) updateTally(f func(t *tally)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.tally)
}

// callParallel calls do for each number below count, until the attack's end. At most maxParallel
// calls run at the same time.
func (a *attacker) callParallel(ctx context.Context, count int, do func(i int)) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(maxParallel, count) {
		workers.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := 0; i < count && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	workers.Wait()
}

// nthAddress returns one of a number of addresses in 127.7.0.0/16.
func nthAddress(i, of int) net.IP { return net.IPv4(127, 7, byte(i%of>>8), byte(i%of)) }

// holdConnections opens Count connections from some addresses and calls say for each. It keeps
// them until the attack's end. If say succeeds, only the target closes the connection.
func (a *attacker) holdConnections(ctx context.Context, to string, addresses int, say func(conn net.Conn, i int) error) {
	var open, saying sync.WaitGroup
	a.callParallel(ctx, a.Count, func(i int) {
		conn, err := a.dial(ctx, to, nthAddress(i, addresses))
		if err != nil {
			return
		}
		saying.Add(1)
		open.Go(func() {
			defer conn.Close()
			err := say(conn, i)
			saying.Done()
			if !a.readUntilClosed(conn) || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				a.updateTally(func(t *tally) { t.Closed++ })
			}
		})
	})
	saying.Wait()
	a.begun()
	open.Wait()
}

// dial opens a connection whose reads and writes end with the attack.
func (a *attacker) dial(ctx context.Context, to string, from net.IP) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp4", to)
	a.updateTally(func(t *tally) {
		if err == nil {
			t.Opened++
		} else {
			t.Failed++
		}
	})
	if err != nil {
		return nil, err
	}
	// SetDeadline fails if the connection is closed.
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, nil
}

// readUntilClosed reads until the connection or the attack ends, and reports whether the attack
// ended first. It counts an HTTP answer.
func (a *attacker) readUntilClosed(conn net.Conn) (stayed bool) {
	buf := make([]byte, 512)
	for {
		n, err := conn.Read(buf)
		var status int
		if _, scanErr := fmt.Sscanf(string(buf[:n]), "HTTP/1.1 %d", &status); scanErr == nil {
			a.updateTally(func(t *tally) { t.Status[status]++ })
		}
		if err != nil {
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
}

// post sends a request with a body on a connection of its own.
func (a *attacker) post(ctx context.Context, path string, body []byte) {
	begin := time.Now()
	status, err := post(ctx, a.endpoints, path, body)
	a.updateTally(func(t *tally) {
		t.Slowest = max(t.Slowest, time.Since(begin))
		if err == nil {
			t.Status[status]++
		} else if ctx.Err() == nil {
			t.Failed++
		}
	})
}

// caller makes a connection for each request, as a script with curl does.
var caller = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// post sends a request with a body, and returns the status of the answer.
func post(ctx context.Context, to endpoints, path string, body []byte) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+to.Web+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	if to.Token != "" {
		request.Header.Set("Authorization", "Bearer "+to.Token)
	}
	answer, err := caller.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

// publish sends commands to the host through the broker. The bare accept loop has no broker, so it
// receives the same bytes by HTTP.
func (a *attacker) publish(ctx context.Context, count int, body func(i int) []byte) error {
	if a.AMQP == "" {
		a.callParallel(ctx, count, func(i int) { a.post(ctx, "/commands", body(i)) })
		return nil
	}
	conn, err := amqp.Dial(a.AMQP)
	if err != nil {
		return fmt.Errorf("dialing the broker: %w", err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("opening a channel: %w", err)
	}
	for i := 0; i < count && ctx.Err() == nil; i++ {
		if err := ch.PublishWithContext(ctx, "", commandsQueue, false, false, amqp.Publishing{Body: body(i)}); err != nil {
			return fmt.Errorf("publishing: %w", err)
		}
		a.tally.Published++
	}
	a.begun()
	<-ctx.Done() // some messages may still wait in the connection
	return nil
}

// shrinkReceiveBuffer makes the kernel keep few bytes for a connection that no one reads.
func shrinkReceiveBuffer(conn net.Conn) error {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
	})
	return errors.Join(err, setErr)
}
