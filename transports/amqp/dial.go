package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// frameSize is the largest frame that the host asks for. It is also RabbitMQ's default.
const frameSize = 128 << 10

// dialer connects to one broker.
type dialer struct {
	config   *Config
	endpoint endpoint
	// name is the connection's name in the broker's tools, without the role.
	name string
	// unreadable is called for each message with headers that the library can't read.
	unreadable func()
	// consumers are the consumers of subscriptions. The reader of a connection counts their
	// deliveries.
	consumers *consumers
}

// dial connects and logs in. It gives up when ctx ends or after connect_timeout.
func (d *dialer) dial(ctx context.Context, role string) (*amqp.Connection, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.ConnectTimeout)
	defer cancel()
	conn, err := connectRedialing(ctx, d.endpoint.addr)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
			err = op.Err
		}
		return nil, fmt.Errorf("dialing %s: %w", d.endpoint.addr, err)
	}
	if d.endpoint.tls {
		if conn, err = d.startTLS(ctx, conn); err != nil {
			return nil, fmt.Errorf("starting TLS with %s: %w", d.endpoint.addr, err)
		}
	}
	// The deadline applies until the library has logged in and clears it. ctx may end earlier.
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, fmt.Errorf("dialing %s: %w", d.endpoint.addr, err)
	}
	w := newWire(conn, d.unreadable, d.consumers)
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(fmt.Sprintf("%s (%s)", d.name, role))
	c, err := amqp.Open(w, amqp.Config{
		// The library clears the password after use, so each connection gets a copy.
		SASL:       []amqp.Authentication{&amqp.PlainAuth{Username: d.endpoint.username, Password: string(d.endpoint.password)}},
		Vhost:      d.endpoint.vhost,
		Heartbeat:  d.config.Heartbeat,
		FrameSize:  frameSize,
		Locale:     "en_US",
		Properties: properties,
	})
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("logging in to %s as %s, virtual host %q: %w", d.endpoint.addr, d.endpoint.username, d.endpoint.vhost, plainError(err))
	}
	return c, nil
}

// redialInterval is how long an attempt stays unanswered before a further one starts in parallel.
// The kernel repeats a packet to a silent peer only after 1, 3 and 7 s. So a single attempt would
// reach the broker only some seconds after the network works again.
const redialInterval = 500 * time.Millisecond

// connectRedialing connects with parallel attempts. It returns the connection or the error of the
// first attempt that is answered.
func connectRedialing(ctx context.Context, addr string) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan answer)
	var trying sync.WaitGroup
	defer trying.Wait()
	defer cancel()
	again := time.NewTicker(redialInterval)
	defer again.Stop()
	for {
		trying.Go(func() {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			select {
			case answers <- answer{conn, err}:
			case <-ctx.Done():
				if err == nil {
					conn.Close()
				}
			}
		})
		select {
		case a := <-answers:
			return a.conn, a.err
		case <-again.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// startTLS reads the certificate files for each connection, so the next connection uses renewed
// files.
func (d *dialer) startTLS(ctx context.Context, conn net.Conn) (net.Conn, error) {
	c, err := d.config.TLS.Config()
	if err != nil {
		conn.Close()
		return nil, err
	}
	if c.ServerName == "" {
		c.ServerName = d.endpoint.host
	}
	encrypted := tls.Client(conn, c)
	if err := encrypted.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return encrypted, nil
}

// plainError turns the library's errors into readable ones. After an orderly close the library
// returns a nil *amqp.Error, whose Error method panics.
func plainError(err error) error {
	e, ok := errors.AsType[*amqp.Error](err)
	switch {
	case !ok:
		return err
	case e == nil:
		return errLost
	case errors.Is(e, amqp.ErrClosed):
		return errLost
	case e.Server:
		return &refusal{e}
	case errors.Is(e, amqp.ErrCredentials), errors.Is(e, amqp.ErrVhost), errors.Is(e, amqp.ErrSASL):
		// The broker closed the connection and gave no cause. The library derives the cause from
		// the step of the login.
		return &refusal{e}
	default:
		return errors.New(e.Reason)
	}
}

// errLost says that a connection or channel is lost and no cause is known.
var errLost = errors.New("the connection was closed")

// refusal is an error that the broker sent.
type refusal struct{ cause *amqp.Error }

func (r *refusal) Error() string {
	return fmt.Sprintf("the broker says %d %s", r.cause.Code, r.cause.Reason)
}

func (r *refusal) Unwrap() error { return r.cause }

// namesExchange reports whether the broker names an exchange as the cause.
func (r *refusal) namesExchange(exchange string) bool {
	return strings.Contains(r.cause.Reason, "exchange '"+exchange+"' ")
}
