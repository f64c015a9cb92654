package amqp

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

// Config is the `[transport.NAME]` table of type amqp. The broker is given either by url, or by
// host, port, vhost, username and password.
type Config struct {
	URL      transports.Secret `toml:"url" schemes:"amqp,amqps" doc:"The broker's address and the login: amqp://user:password@host:port/vhost, or amqps:// for TLS." example:"\"amqp://guest:guest@127.0.0.1:5672/\""`
	Host     string            `toml:"host" doc:"The broker's host name or address, if url isn't used."`
	Port     int               `toml:"port" doc:"The broker's port; 0 is 5672, or 5671 with TLS." min:"0" max:"65535"`
	VHost    string            `toml:"vhost" doc:"The virtual host."`
	Username string            `toml:"username" doc:"The user to log in as."`
	Password transports.Secret `toml:"password" doc:"The user's password."`
	TLS      *transports.TLS   `toml:"tls" doc:"TLS to the broker. With an empty table the host trusts the system's certificate authorities."`

	Prefetch       int                  `toml:"prefetch" doc:"The window: how many unsettled messages one consumer may have." min:"1" max:"65535" unit:"messages"`
	ConnectionName string               `toml:"connection_name" doc:"The connection's name in the broker's tools; default: the names of the host and the transport."`
	ConnectTimeout time.Duration        `toml:"connect_timeout" doc:"How long one attempt to connect and log in may take."`
	Heartbeat      time.Duration        `toml:"heartbeat" doc:"The interval of AMQP heartbeats. The host treats the broker as lost if it receives nothing for one and a half intervals." min:"1s"`
	PublishTimeout time.Duration        `toml:"publish_timeout" doc:"How long one attempt to publish may wait for the connection and the confirm."`
	ConfirmWindow  int                  `toml:"confirm_window" doc:"The confirm window: how many published messages may wait for their confirms." min:"1" unit:"messages"`
	MaxMessage     int                  `toml:"max_message" doc:"The largest body that the host publishes. The default of the broker's own limit (max_message_size) is 134217728 in RabbitMQ 3 and 16777216 in RabbitMQ 4." unit:"bytes" min:"1" max:"536870912"`
	Reconnect      transports.Reconnect `toml:"reconnect" doc:"The pauses between attempts to connect."`
	ReplyTo        []string             `toml:"reply_to" doc:"Names or patterns of queues that the reply_to of a message may name. In a pattern, * stands for any characters except /. Queues whose names the broker chose are always allowed." example:"[\"replies.*\"]"`

	Topics map[string]TopicConfig `toml:"topic" doc:"The exchange and queue of each topic. Without a table, a topic has a durable queue with the topic's name. The queue is bound to the durable topic exchange \"pentrough\", with the topic's name as key."`
}

// maxMaxMessage is the highest value that RabbitMQ accepts for its own limit.
const maxMaxMessage = 512 << 20

var defaults = Config{
	Host:           "127.0.0.1",
	VHost:          "/",
	Username:       "guest",
	Password:       "guest",
	Prefetch:       1000,
	ConnectTimeout: 10 * time.Second,
	Heartbeat:      10 * time.Second,
	PublishTimeout: 30 * time.Second,
	ConfirmWindow:  1000,
	MaxMessage:     128 << 20,
	Reconnect:      transports.Reconnect{InitialInterval: 100 * time.Millisecond, MaxInterval: 500 * time.Millisecond},
}

// Validate reports all mistakes in the table.
func (c *Config) Validate() error {
	var errs []error
	invalid := func(field, format string, args ...any) {
		errs = append(errs, transports.Invalid(field, format, args...))
	}
	if _, err := c.endpoint(); err != nil {
		errs = append(errs, err)
	}
	if err := c.TLS.Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.Prefetch < 1 || c.Prefetch > math.MaxUint16 {
		invalid("prefetch", "%d is not from 1 to %d", c.Prefetch, math.MaxUint16)
	}
	if c.ConfirmWindow < 1 {
		invalid("confirm_window", "%d is less than 1", c.ConfirmWindow)
	}
	if c.MaxMessage < 1 || c.MaxMessage > maxMaxMessage {
		invalid("max_message", "%d is not from 1 to %d", c.MaxMessage, maxMaxMessage)
	}
	if c.Heartbeat < time.Second {
		invalid("heartbeat", "%s is less than 1s", c.Heartbeat)
	}
	if len(c.ConnectionName) > maxShortString {
		invalid("connection_name", "is longer than %d bytes", maxShortString)
	}
	for field, d := range map[string]time.Duration{
		"connect_timeout": c.ConnectTimeout,
		"publish_timeout": c.PublishTimeout,
	} {
		if d <= 0 {
			invalid(field, "%s is not more than 0s", d)
		}
	}
	if err := c.Reconnect.Validate(); err != nil {
		errs = append(errs, err)
	}
	for i, pattern := range c.ReplyTo {
		if err := checkPattern(pattern); err != nil {
			invalid(fmt.Sprintf("reply_to[%d]", i), "%q %v", pattern, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Topics)) {
		topic := c.Topics[name]
		errs = append(errs, topic.validate("topic."+name, name)...)
	}
	return errors.Join(errs...)
}

// Topic implements transports.Config.
func (c *Config) Topic(name string, use transports.Use) (transports.Topic, error) {
	if use == transports.Return {
		return transports.Topic{Window: 1, Broker: true}, nil
	}
	if err := checkName(name); err != nil {
		return transports.Topic{}, fmt.Errorf("topic %q: as a queue's name it %w", name, err)
	}
	r, err := c.route(name)
	if err != nil {
		return transports.Topic{}, err
	}
	t := transports.Topic{Window: r.prefetch, Broker: true, Stream: queueStream(r.queue)}
	if e, err := c.endpoint(); err == nil { // otherwise Validate says what is wrong
		t.System = e.addr + "/" + e.vhost
	}
	if _, ok := c.Topics[name]; !ok {
		if near := nearestName(name, slices.Sorted(maps.Keys(c.Topics))); near != "" {
			t.Warning = fmt.Sprintf("topic %q has no table, so its queue is %q; did you mean %q?", name, name, near)
		}
	}
	return t, nil
}

// queueStream returns the name of a queue in [transports.Topic].
func queueStream(queue string) string { return "queue " + queue }

// endpoint is the broker's address and the login.
type endpoint struct {
	addr     string
	host     string
	vhost    string
	username string
	password transports.Secret
	tls      bool
}

const urlForm = "amqp://user:password@host:port/vhost (or amqps://), with reserved characters of user, password and vhost percent-encoded"

// endpoint returns the broker, which either url names, or host and the other keys. No error quotes
// the URL, because it has a password.
func (c *Config) endpoint() (endpoint, error) {
	if c.URL == "" {
		e := endpoint{host: c.Host, vhost: c.VHost, username: c.Username, password: c.Password, tls: c.TLS != nil}
		if c.Host == "" {
			return e, transports.Invalid("host", "is empty")
		}
		if c.Port < 0 || c.Port > math.MaxUint16 {
			return e, transports.Invalid("port", "%d is not from 0 to %d", c.Port, math.MaxUint16)
		}
		port := c.Port
		switch {
		case port != 0:
		case e.tls:
			port = 5671
		default:
			port = 5672
		}
		e.addr = net.JoinHostPort(c.Host, strconv.Itoa(port))
		return e, nil
	}
	if c.Host != defaults.Host || c.Port != 0 || c.VHost != defaults.VHost || c.Username != defaults.Username || c.Password != defaults.Password {
		return endpoint{}, transports.Invalid("url", "is given together with host, port, vhost, username or password; use one or the other")
	}
	uri, err := amqp.ParseURI(string(c.URL))
	if err != nil || !strings.Contains(string(c.URL), "://") {
		// The library reads amqp:/u:p@h as a virtual host on localhost.
		return endpoint{}, transports.Invalid("url", "doesn't have the form %s", urlForm)
	}
	if uri.Port < 1 || uri.Port > math.MaxUint16 {
		return endpoint{}, transports.Invalid("url", "has the port %d, which is not from 1 to %d", uri.Port, math.MaxUint16)
	}
	if u, err := url.Parse(string(c.URL)); err != nil || u.RawQuery != "" {
		return endpoint{}, transports.Invalid("url", "has a query; heartbeat, tls and the rest are keys of the transport's table")
	}
	e := endpoint{
		addr:     net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port)),
		host:     uri.Host,
		vhost:    uri.Vhost,
		username: uri.Username,
		password: transports.Secret(uri.Password),
		tls:      uri.Scheme == "amqps",
	}
	if c.TLS != nil && !e.tls {
		return e, transports.Invalid("url", "is amqp://, but there is a tls table; write amqps://")
	}
	return e, nil
}

var _ transports.Risky = (*Config)(nil)

// Risks implements transports.Risky.
func (c *Config) Risks() map[string]string {
	risks := map[string]string{}
	if e, err := c.endpoint(); err == nil && !e.tls && !transports.Loopback(e.host) {
		key := "host"
		if c.URL != "" {
			key = "url"
		}
		risks[key] = "password and messages are sent in the clear, because the broker isn't on a loopback address; use amqps:// or a table tls"
	}
	if slices.ContainsFunc(c.ReplyTo, func(pattern string) bool { return strings.Trim(pattern, "*") == "" }) {
		risks["reply_to"] = "anyone who may publish to this host can make it write results to any queue that it doesn't consume; list only queues that are for replies"
	}
	return risks
}

// nearestName returns the candidate that differs from name by one or two characters, or "".
func nearestName(name string, candidates []string) string {
	best, at := "", 3
	for _, c := range candidates {
		if d := editDistance(name, c); d < at && d < max(len(name), len(c)) {
			best, at = c, d
		}
	}
	return best
}

// editDistance returns the Levenshtein distance. It computes each row of the table from the row
// before.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			row[j+1] = min(above+1, row[j]+1)
			if a[i] == b[j] {
				row[j+1] = min(row[j+1], diagonal)
			} else {
				row[j+1] = min(row[j+1], diagonal+1)
			}
			diagonal = above
		}
	}
	return row[len(b)]
}

// checkName checks the name of a queue that this package declares.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > maxShortString:
		return fmt.Errorf("is longer than %d bytes", maxShortString)
	case strings.HasPrefix(name, "amq."):
		return errors.New(`begins with "amq.", which is reserved for the broker`)
	}
	return nil
}
