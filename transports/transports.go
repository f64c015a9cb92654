// Package transports is the contract of everything that carries messages into or out of the host:
// amqp, tcp, http, memory.
//
// A transport is a plugin: its folder registers a [Plugin] in an init function. The host decodes
// the `[transport.NAME]` table into the plugin's [Config], asks it about every topic that a
// pipeline uses, builds the [Transport] with New, and then calls, in this order: Subscriber (once
// a pipeline) and Publisher (once a pipeline and topic), Start, Quiesce, Close.
//
// Package pubsub makes a transport of any Watermill Publisher and Subscriber.
//
// # What a transport owes
//
// Each pipeline gets a Subscriber and a Publisher of its own over the shared connection; their
// Close ends only that pipeline's use. A [Subscriber] hands out up to [Topic].Window unsettled
// deliveries in arrival order, without waiting for earlier ones to be settled. A [Delivery]
// carries the function that settles it: no goroutine waits for that. A delivery that became void
// (channel lost, queue deleted, HTTP caller gone) ends its context with cause [ErrVoid]; settling
// it is then without effect.
//
// # What a transport may offer
//
// A transport that can do more implements one of these interfaces. Of every other transport the
// host assumes the least.
//
//	interface      implemented by                             called for
//	[Drainer]      memory, tcp                                a stop: topics that are fed inside the host run empty
//	[Tapper]       amqp, http, memory, pubsub, schedule, tcp  pentrough listen
//	[Answerer]     amqp                                       reply_to, and HTTP callers that wait for a result
//	[Acceptor]     amqp, pubsub                               503 to callers while a destination is away; poison replay
//	[Needer]       http, tcp                                  validate, run: addresses to bind, the inventory
//	[Risky]        amqp, http                                 validate, run: warnings
//	[Checker]      amqp, http                                 run --dry-run
//
// [Needer], [Risky] and [Checker] are for a Config, the others for a Transport. A transport that holds
// devices implements the interfaces of package device.
package transports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/plugin"
)

// ErrVoid is the cause (context.Cause) of a delivery's context when the delivery no longer
// exists: it can't be settled any more, and its source may deliver it again.
var ErrVoid = errors.New("delivery became void")

// ErrUnroutable is what Publish returns when a message would reach nobody, and the topic says
// that such messages are to be tried again.
var ErrUnroutable = errors.New("no queue for this message")

// ErrUndecided is what Publish returns when a message may or may not have arrived: repeat it with
// the same id.
var ErrUndecided = errors.New("not known whether the message arrived")

// ErrUnsendable is what Publish returns when the receiving system will never take one of the
// messages as it is, such as one that is too large: nothing is gained by trying it again.
var ErrUnsendable = errors.New("can't be sent")

// ErrNotStarted is in the outcome of a delivery that was given up before its run started. Only
// deliveries of an Impatient topic get it; others are handed back.
var ErrNotStarted = errors.New("given up before its turn; nothing was written")

// ErrClosed is what a publisher or subscriber returns after its Close.
var ErrClosed = errors.New("closed")

// Transport is one running connection to a system. All methods are safe for concurrent use.
type Transport interface {
	// Subscriber returns a pipeline's own subscriber. It does no I/O.
	Subscriber(c Consumer) (Subscriber, error)

	// Publisher returns a pipeline's own publisher for one topic. Publish makes one attempt: it
	// blocks until the receiving system has confirmed all messages and returns nil. After an
	// error any of them may have arrived, but see [Return]. It gives up when a message's context
	// ends. The call does no I/O; the topic is prepared in the background from Start on.
	Publisher(p Producer) (message.Publisher, error)

	// Start binds listeners (an address that can't be bound is an error) and begins connecting in
	// the background (a system that can't be reached is not an error but a health report). ctx
	// bounds the call only.
	Start(ctx context.Context) error

	// Health says for each part whether it works.
	Health() []Health

	// Quiesce takes nothing new from outside any more: listeners are closed, new callers are
	// refused. What exists goes on.
	Quiesce()

	// Close ends everything at once and returns when its goroutines are gone, or when ctx ends.
	Close(ctx context.Context) error
}

// Subscriber delivers a transport's messages to one pipeline. All methods are safe for concurrent
// use.
type Subscriber interface {
	// Subscribe calls take with each delivery of the topic, one after the other, and returns when
	// deliveries can come. take doesn't block, and may be called before Subscribe returns. While
	// it calls take, the transport holds no lock that Settle acquires.
	//
	// After ctx has ended no more deliveries are handed out. Those that were can still be settled;
	// Settle(nil) leaves them with their source. done closes when all are settled, or at Close.
	// Subscribe may be called again after that. The deliveries' contexts are not derived from ctx.
	Subscribe(ctx context.Context, topic string, take func(*Delivery)) (done <-chan struct{}, err error)

	// Close ends the pipeline's use: what it has unsettled becomes void. No delivery is handed
	// out after it.
	Close() error
}

// Consumer says for whom a subscriber is.
type Consumer struct {
	// Pipeline is the pipeline's name; it names the consumer of a topic.
	Pipeline string
	// Competing says that consumers of others may take messages from the topic's stream, so that
	// each gets a part of them.
	Competing bool
	// Present is called with false when the subscriber can't get messages, such as when its
	// broker is away, and with true when it can again. Until the first call the host assumes
	// true. It doesn't block, and may be nil.
	Present func(bool)
}

// Producer says for whom a publisher is.
type Producer struct {
	Pipeline string
	// Topic is what will be published to, so that the transport can prepare it before the first
	// message.
	Topic string
	// Use is Return if each message goes back to where it came from. Otherwise it may be 0.
	Use Use
}

// Health is the state of one part of a transport, for readiness and for people.
type Health struct {
	// Part is "connection", "topic commands", "listener" and the like.
	Part string
	// Err is nil if the part works, otherwise why it doesn't, in a sentence that says what is
	// being done about it.
	Err error
}

// Drainer is implemented by a transport whose topics are fed from inside the host: memory, and
// the events of devices.
type Drainer interface {
	// Drain says that nothing will be published to the topic any more: its subscriptions hand out
	// what is still there, and are done when that is settled.
	Drain(topic string)
}

// Tapper is implemented by transports that can show a topic's messages without consuming them.
type Tapper interface {
	// Tap yields copies of the topic's messages from now on until ctx ends, then closes the
	// channel. A reader that is too slow misses messages; nothing else is held up.
	Tap(ctx context.Context, topic string) (<-chan *message.Message, error)
}

// Answerer is implemented by transports whose messages can name an address for an answer, in both
// directions.
type Answerer interface {
	// Answer sends an outcome to the address that a message names in its metadata, if it names
	// one. The message was delivered by the transport some time ago, and came back to the host by
	// another way. Answer doesn't block.
	Answer(metadata message.Metadata, o *Outcome)

	// Expect prepares for one answer to a message that the host will publish. The message's
	// metadata keys reply_to and correlation_id must be set to the returned values. The channel
	// yields at most one message. cancel must be called.
	Expect(ctx context.Context) (replyTo, correlationID string, answer <-chan *message.Message, cancel func(), err error)
}

// Acceptor is implemented by transports that can't take messages at times, such as while their
// broker is away.
type Acceptor interface {
	// Accepts returns nil, or why a message published to the topic now would have to wait.
	Accepts(topic string) error
}

// Use says what a pipeline wants from a topic.
type Use int

const (
	// Consume is the use of `from`.
	Consume Use = iota + 1
	// Produce is the use of `to` and of every other reference to a topic.
	Produce
	// Return is the use that a replay of dead letters makes: each message goes back to where it
	// once came from, as its metadata with [SourcePrefix] say. There is no topic: its name is
	// empty. After an error that isn't [ErrUndecided] the message did not arrive.
	Return
)

// Topic is what a transport says of one of its topics before anything is started.
type Topic struct {
	// Window is the most unsettled messages that one consumer holds. At least 1.
	Window int
	// Broker means that messages stay with a broker until acked, and are redelivered if they
	// aren't.
	Broker bool
	// Impatient means that a caller waits for each message and can't wait for long: while a
	// pipeline is paused its messages are answered with unavailable.
	Impatient bool
	// Stream names what a consumer takes messages away from: two pipelines whose Stream is the
	// same would share its messages. Empty if each consumer gets every message.
	Stream string
	// System names what the stream is a part of, such as a broker's address: transports that say
	// the same share their streams. Empty: the stream is the transport's own.
	System string
	// Warning is a sentence for the user about a topic that is legal but perhaps not meant, such
	// as a near miss of a name.
	Warning string
}

// Config is a transport's configuration: a pointer to a struct whose exported fields have toml
// and doc tags. An optional method Validate() error reports all problems, joined, each made with
// [Invalid].
type Config interface {
	// Topic describes a topic for a use. The error, for a topic that can't be used so, says what
	// is possible.
	Topic(name string, use Use) (Topic, error)
	// New builds the transport. It does no I/O.
	New(env Env) (Transport, error)
}

// Needer is implemented by configurations of transports that need something of the host.
type Needer interface {
	// Needs returns what a valid configuration needs.
	Needs() Needs
}

// Needs is what a transport needs of the host. The zero value is nothing.
type Needs struct {
	// Binds are the addresses to be bound, as net.Listen takes them, by their TOML key.
	Binds map[string]string
	// Inventory is the setting that needs an inventory of devices, such as `allow = "known"`.
	// Empty: none does.
	Inventory string
}

// Risky is implemented by configurations of plugins, of whatever kind, that may give away what
// should be protected, such as a password that is sent in the clear.
type Risky interface {
	// Risks returns warnings by the TOML key of the setting, such as "url" or "headers.Cookie".
	Risks() map[string]string
}

// Loopback says whether a host of an address is this machine alone.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// NeedsOf returns what a configuration needs; nothing if it is no [Needer].
func NeedsOf(c Config) Needs {
	if n, ok := c.(Needer); ok {
		return n.Needs()
	}
	return Needs{}
}

// Env is what the host lends to a transport.
type Env struct {
	// Name is the transport's name in the configuration.
	Name string
	// Host is the host's name, stable over restarts.
	Host string
	// Logger carries the transport's name already.
	Logger *slog.Logger
	// Now is the wall clock for times in messages.
	Now func() time.Time
	// Consumed are the topics that the host's pipelines consume, of every transport.
	Consumed []Topic
	// Registerer takes the transport's metrics; it adds the label "transport" already.
	Registerer prometheus.Registerer
}

// Plugin describes a transport to the registry.
type Plugin struct {
	// Name is what `type = "name"` says.
	Name string
	// Summary is one line.
	Summary string
	// Description is Markdown for the transport's page.
	Description string
	// Devices says that the transport implements device.Provider.
	Devices bool
	// SelfContained says that the transport reaches nothing outside the host, so that a test of a
	// configuration can run the transport itself. In place of others stands a fake.
	SelfContained bool
	// Config returns a new configuration with every default set.
	Config func() Config
}

const kind = "transport"

func init() { plugin.Define[Config](kind) }

// Register makes a transport known. Call it from an init function. It panics if the name is taken.
func Register(p Plugin) {
	plugin.Register(kind, plugin.Info{
		Name: p.Name, Summary: p.Summary, Description: p.Description, Extra: p,
		New: func() any { return p.Config() },
	})
}

// Invalid returns an error for Validate that belongs to one field, named by its TOML key.
func Invalid(field, format string, args ...any) error {
	return plugin.Invalid(field, format, args...)
}

// TopicRef names a topic of a transport: "broker:commands". Fields of this type are checked
// before anything starts.
type TopicRef string

// References marks the type for the configuration decoder.
func (TopicRef) References() string { return "topic" }

// Split returns the transport's name and the topic.
func (r TopicRef) Split() (transport, topic string, err error) {
	transport, topic, ok := strings.Cut(string(r), ":")
	if !ok || transport == "" || topic == "" {
		return "", "", fmt.Errorf("%q is not of the form transport:topic", string(r))
	}
	return transport, topic, nil
}

// DevicesRef names a transport that holds devices.
type DevicesRef string

// References marks the type for the configuration decoder.
func (DevicesRef) References() string { return "devices" }

// Secret is a string that is never printed. Convert it with string() where it is used.
type Secret string

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[redacted]"
}

// GoString hides the secret.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
