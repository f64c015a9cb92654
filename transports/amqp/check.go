package amqp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

var _ transports.Checker = (*Config)(nil)

// checkRole names a connection of a dry run in the broker's tools.
const checkRole = "dry run"

// Check implements transports.Checker. It connects, logs in, and checks whether exchanges and
// queues exist. It can't check their properties or the bindings, because AMQP offers no way to
// query them.
func (c *Config) Check(ctx context.Context, env transports.Env, uses []transports.TopicUse) []transports.Check {
	e, err := c.endpoint()
	if err != nil {
		return []transports.Check{{Part: "connection", Err: err}}
	}
	d := &dialer{
		config: c, endpoint: e, unreadable: func() {},
		name: orDefault(c.ConnectionName, fmt.Sprintf("pentrough %s %s", env.Host, env.Name)),
	}
	conn, err := d.dial(ctx, checkRole)
	if err != nil {
		return []transports.Check{{Part: "connection", Err: err, Next: nextForConnection(err)}}
	}
	defer func() { _ = conn.Close() }() // the connection carried no messages
	all := []transports.Check{{Part: "connection", Found: fmt.Sprintf("logged in to %s as %s, virtual host %q", e.addr, e.username, e.vhost)}}
	for _, use := range uses {
		all = append(all, c.checkTopic(conn, use))
	}
	return all
}

// nextForConnection returns what to do when the broker can't be reached or refuses the login.
func nextForConnection(err error) string {
	var op net.Error
	switch {
	case errors.Is(err, amqp.ErrCredentials), errors.Is(err, amqp.ErrSASL):
		return "correct username and password, or create the user: rabbitmqctl add_user"
	case errors.Is(err, amqp.ErrVhost):
		return "create the virtual host and give the user access: rabbitmqctl add_vhost, rabbitmqctl set_permissions"
	case errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		return "correct the file in the table tls"
	case strings.HasPrefix(err.Error(), "starting TLS"):
		return "compare the table tls with the broker's certificate"
	case errors.As(err, &op), strings.HasPrefix(err.Error(), "dialing"):
		return "start the broker, or correct its address"
	default:
		return ""
	}
}

// checkTopic checks whether the exchange and the queue of a topic exist.
func (c *Config) checkTopic(conn *amqp.Connection, use transports.TopicUse) transports.Check {
	check := transports.Check{Part: "topic " + use.Topic}
	r, err := c.route(use.Topic)
	if err != nil {
		check.Err = err
		return check
	}
	var found, missing []string
	note := func(what, there string, err error) {
		switch {
		case err == nil:
			found = append(found, what+" exists"+there)
		case !isNotFound(err):
			check.Err = errors.Join(check.Err, fmt.Errorf("checking %s: %w", what, plainError(err)))
			check.Next = "let the user read and configure it: rabbitmqctl set_permissions"
		case !r.declare || strings.HasPrefix(what, `exchange "amq.`):
			check.Err = errors.Join(check.Err, fmt.Errorf("%s doesn't exist", what))
			check.Next = "create it in the broker, or let the host create it: declare = true"
		default:
			missing = append(missing, what)
		}
	}
	if r.exchange != amqp.DefaultExchange {
		note(fmt.Sprintf("exchange %q", r.exchange), "", onChannel(conn, func(ch *amqp.Channel) error {
			e := r.config.Exchange
			return ch.ExchangeDeclarePassive(r.exchange, e.Type, e.Durable, e.AutoDeleted, e.Internal, false, e.Arguments)
		}))
	}
	// A publisher needs the exchange, and declares the queue if it may.
	if use.Use == transports.Consume || r.declare && !r.config.Queue.Exclusive {
		var q amqp.Queue
		err := onChannel(conn, func(ch *amqp.Channel) (err error) {
			q, err = ch.QueueDeclarePassive(r.queue, r.config.Queue.Durable, r.config.Queue.AutoDelete, r.config.Queue.Exclusive, false, r.config.Queue.Arguments)
			return err
		})
		note(fmt.Sprintf("queue %q", r.queue), fmt.Sprintf(" (%d waiting, %d consuming)", q.Messages, q.Consumers), err)
		if err == nil && use.Use == transports.Consume && !use.Competing && !r.isSingleActive() && q.Consumers > 0 {
			check.Err = errors.Join(check.Err, errShared(r.queue, q.Consumers))
			check.Next = nextStepShared
		}
	}
	if len(missing) > 0 {
		check.Missing = true
		found = append(found, strings.Join(missing, " and ")+" will be created")
	}
	check.Found = strings.Join(found, ", ")
	return check
}

// onChannel calls ask with a channel of its own, because a refusal closes the channel.
func onChannel(conn *amqp.Connection, ask func(*amqp.Channel) error) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = ch.Close() }() // a refusal has closed it
	return ask(ch)
}

// isNotFound reports whether the broker says that an exchange or queue doesn't exist.
func isNotFound(err error) bool {
	e, ok := errors.AsType[*amqp.Error](err)
	return ok && e != nil && e.Code == amqp.NotFound
}
