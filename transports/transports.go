// Package transports is the contract of transports, which carry messages into and out of the host.
// Examples are amqp, tcp, http and memory.
//
// A transport is a plugin. Its package registers a [Plugin] in an init function. The host decodes
// the `[transport.NAME]` table into the plugin's [Config] and calls Config.Topic for every topic
// that a pipeline uses. It builds the [Transport] with New, and then calls, in this order:
// Subscriber (once per pipeline), Publisher (once per pipeline and topic), Start, Quiesce, Close.
//
// Package pubsub makes a transport from any Watermill Publisher and Subscriber.
//
// # Duties
//
// Each pipeline gets its own Subscriber and Publisher over the shared connection. Their Close ends
// only that pipeline's use. A [Subscriber] delivers up to [Topic].Window unsettled messages in
// arrival order, without waiting for earlier ones to be settled. A [Delivery] has the function
// that settles it, so that no goroutine waits for that. A delivery becomes void when its channel
// is lost, its queue is deleted or its HTTP caller hangs up. Its context then ends with the cause
// [ErrVoid], and settling it has no effect.
//
// # Optional interfaces
//
// A transport that can do more implements one of the following interfaces. If an interface is
// missing, the host assumes that the transport can't do what the interface is for.
//
//	interface      implemented by                             called for
//	[Drainer]      memory, tcp                                a stop: the topics that the host feeds
//	[Tapper]       amqp, http, memory, pubsub, schedule, tcp  pentrough listen
//	[Answerer]     amqp                                       reply_to, and HTTP callers that wait for a result
//	[Acceptor]     amqp, pubsub                               503 in an outage of a destination; poison replay
//	[Needer]       http, tcp                                  validate, run: addresses to bind, the inventory
//	[Risky]        amqp, http, tcp                            validate, run: warnings
//	[Checker]      amqp, http, tcp                            run --dry-run
//
// [Needer], [Risky] and [Checker] are for a Config, the others for a Transport. A transport that
// has devices implements the interfaces of package device.
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

// ErrUnroutable is returned by Publish when no queue would get the message and the topic is
// configured to retry such messages.
var ErrUnroutable = errors.New("no queue for this message")

// ErrUndecided is returned by Publish when the message may or may not have arrived. Publish it
// again with the same id.
var ErrUndecided = errors.New("not known whether the message arrived")

// ErrUnsendable is returned by Publish when the receiving system can never accept one of the
// messages, such as one that is too large. Another attempt is useless.
var ErrUnsendable = errors.New("can't be sent")

// ErrNotStarted is in the outcome of a delivery whose run never started. Only deliveries of an
// Impatient topic get it; others go back to their source.
var ErrNotStarted = errors.New("given up before its turn; nothing was written")

// ErrClosed is returned by a publisher or subscriber after its Close.
var ErrClosed = errors.New("closed")

// Transport is one running connection to a system. All methods are safe for concurrent use.
type Transport interface {
	// Subscriber returns a pipeline's own subscriber. It does no I/O.
	Subscriber(c Consumer) (Subscriber, error)

	// Publisher returns a pipeline's own publisher for one topic. It does no I/O; the transport
	// prepares the topic in the background after Start. The publisher's Publish makes one attempt:
	// it blocks until the receiving system has confirmed all messages, and returns an error when a
	// message's context ends. After an error any of the messages may have arrived, but see
	// [Return].
	Publisher(p Producer) (message.Publisher, error)

	// Start binds listeners and begins to connect in the background. It returns an error if an
	// address can't be bound. A system that can't be reached is no error: Health reports it. ctx
	// bounds only the call.
	Start(ctx context.Context) error

	// Health returns the state of each part.
	Health() []Health

	// Quiesce closes listeners and refuses new callers. Existing connections and requests go on.
	Quiesce()

	// Close ends everything at once. It returns when all goroutines have ended, or when ctx ends.
	Close(ctx context.Context) error
}

// Subscriber delivers a transport's messages to one pipeline. All methods are safe for concurrent
// use.
type Subscriber interface {
	// Subscribe calls take with each delivery of the topic, one after the other. It returns when
	// it is ready to deliver; take may be called earlier. take doesn't block. The transport
	// doesn't call take with a lock that Settle acquires.
	//
	// When ctx ends, Subscribe stops calling take. Unsettled deliveries can still be settled;
	// Settle(nil) leaves them with their source. done is closed when all are settled, or at Close.
	// Subscribe may then be called again. The deliveries' contexts are not derived from ctx.
	Subscribe(ctx context.Context, topic string, take func(*Delivery)) (done <-chan struct{}, err error)

	// Close ends the pipeline's use. Its unsettled deliveries become void, and take is not called
	// any more.
	Close() error
}

// Consumer describes the pipeline that a subscriber is for.
type Consumer struct {
	// Pipeline is the pipeline's name. It becomes the name of the topic's consumer.
	Pipeline string
	// Competing says that other consumers may share the topic's stream, so that each gets a part
	// of the messages.
	Competing bool
	// Present is called with false when the subscriber can't get messages, such as in an outage of
	// its broker, and with true when it can again. Until the first call the host assumes true.
	// Present doesn't block, and may be nil.
	Present func(bool)
}

// Producer describes the pipeline that a publisher is for.
type Producer struct {
	Pipeline string
	// Topic is the topic to publish to. The transport can prepare it before the first message.
	Topic string
	// Use is [Return] if each message goes back to where it came from. Otherwise it may be 0.
	Use Use
}

// Health is the state of one part of a transport, for readiness and for people.
type Health struct {
	// Part is "connection", "topic commands", "listener" and the like.
	Part string
	// Err is nil if the part works. Otherwise its text says why it doesn't, and what the host does
	// about it.
	Err error
	// Note is what people should know of a part that works, such as a listener under attack.
	Note string
}

// Drainer is implemented by a transport whose topics get their messages from inside the host, such
// as memory and the events of devices.
type Drainer interface {
	// Drain notes that nothing more will be published to the topic. Its subscriptions deliver the
	// remaining messages, and are done when these are settled.
	Drain(topic string)
}

// Tapper is implemented by transports that can show a topic's messages without consuming them.
type Tapper interface {
	// Tap sends copies of the topic's messages to the channel, from now on until ctx ends, and
	// then closes it. A slow reader misses messages; it delays nothing else.
	Tap(ctx context.Context, topic string) (<-chan *message.Message, error)
}

// Answerer is implemented by transports whose messages can name an address for an answer. The host
// uses it in both directions: to send an answer, and to wait for one.
type Answerer interface {
	// Answer sends an outcome to the address in a message's metadata, if there is one. The
	// transport delivered that message some time ago; its outcome comes from the ledger. Answer
	// doesn't block.
	Answer(metadata message.Metadata, o *Outcome)

	// Expect prepares for one answer to a message that the host will publish. The caller sets that
	// message's metadata reply_to and correlation_id to the returned values. The channel gets at
	// most one message. cancel must be called.
	Expect(ctx context.Context) (replyTo, correlationID string, answer <-chan *message.Message, cancel func(), err error)
}

// Acceptor is implemented by transports that can't take messages at times, such as in an outage of
// their broker.
type Acceptor interface {
	// Accepts returns nil if the topic takes messages now, and otherwise why a message would have
	// to wait.
	Accepts(topic string) error
}

// Use says what a pipeline wants from a topic.
type Use int

const (
	// Consume is the use of `from`.
	Consume Use = iota + 1
	// Produce is the use of `to` and of every other reference to a topic.
	Produce
	// Return is the use by a replay of dead letters. Each message goes back to where it came from,
	// which is in its metadata with [SourcePrefix]. The topic's name is empty. After an error
	// other than [ErrUndecided] the message did not arrive.
	Return
)

// Topic describes one of a transport's topics before anything is started.
type Topic struct {
	// Window is how many messages of one consumer may be unsettled. At least 1.
	Window int
	// Broker means that a broker keeps messages until they are acked, and redelivers them if they
	// aren't.
	Broker bool
	// Impatient means that a caller waits for each message. While the pipeline is paused, the host
	// answers its messages with unavailable.
	Impatient bool
	// Stream names the stream that consumers share. Two pipelines with the same Stream would each
	// get a part of its messages. It is empty if each consumer gets every message.
	Stream string
	// System names the system that has the stream, such as a broker's address. Transports with the
	// same System share their streams. If it is empty, the stream belongs to this transport alone.
	System string
	// Warning is a sentence for the user about a topic that is allowed but probably a mistake,
	// such as a misspelt name.
	Warning string
}

// Config is a transport's configuration: a pointer to a struct whose exported fields have toml and
// doc tags. An optional method Validate() error returns all problems joined, each made with
// [Invalid].
type Config interface {
	// Topic describes a topic for a use. If the topic can't be used in this way, the error says
	// what is possible.
	Topic(name string, use Use) (Topic, error)
	// New builds the transport. It does no I/O.
	New(env Env) (Transport, error)
}

// Needer is implemented by configurations of transports that need something from the host.
type Needer interface {
	// Needs returns what a valid configuration needs.
	Needs() Needs
}

// Needs has what a transport needs from the host. The zero value needs nothing.
type Needs struct {
	// Binds has the addresses to bind, as net.Listen takes them, by their TOML key.
	Binds map[string]string
	// Connections is how many connections the transport takes at its addresses, as its setting
	// max_connections says. 0 means as many as the host has descriptors for. A transport without
	// addresses needs descriptors only if Connections isn't 0.
	Connections int
	// Inventory is the setting that needs an inventory of devices, such as `allow = "known"`. It
	// is empty if none does.
	Inventory string
}

// Risky is implemented by configurations of any kind of plugin that may disclose something secret,
// such as a password that is sent unencrypted.
type Risky interface {
	// Risks returns warnings by the TOML key of the setting, such as "url" or "headers.Cookie".
	Risks() map[string]string
}

// Loopback reports whether the host of an address is only this machine.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// NeedsOf returns what a configuration needs. If it isn't a [Needer], it needs nothing.
func NeedsOf(c Config) Needs {
	if n, ok := c.(Needer); ok {
		return n.Needs()
	}
	return Needs{}
}

// Env has what the host gives to a transport.
type Env struct {
	// Name is the transport's name in the configuration.
	Name string
	// Host is the host's name, stable over restarts.
	Host string
	// Logger carries the transport's name already.
	Logger *slog.Logger
	// Now is the wall clock for times in messages.
	Now func() time.Time
	// Connections is the transport's share of the process's descriptors: how many connections it
	// may have, accepted and dialed. 0 is no limit.
	Connections int
	// Consumed has the topics of all transports that the host's pipelines consume.
	Consumed []Topic
	// Registerer takes the transport's metrics; it adds the label "transport" already.
	Registerer prometheus.Registerer
	// Memory has the budgets for the bytes that the transport keeps.
	Memory Memory
}

// Plugin describes a transport to the registry.
type Plugin struct {
	// Name is the name in `type = "name"`.
	Name string
	// Summary is one line.
	Summary string
	// Description is Markdown for the transport's page.
	Description string
	// Devices says that the transport implements device.Provider.
	Devices bool
	// SelfContained says that the transport connects to nothing outside the host. `pentrough test`
	// runs such a transport itself. It replaces any other transport by a fake.
	SelfContained bool
	// Config returns a new configuration with all defaults set.
	Config func() Config
}

const kind = "transport"

func init() { plugin.Define[Config](kind) }

// Register adds a transport to the registry. Call it from an init function. It panics if the name
// is taken.
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

// DevicesRef names a transport that has devices.
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
