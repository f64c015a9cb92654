// Package redis is a transport over the streams of a Redis server.
package redis

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/pubsub"
)

func init() {
	transports.Register(transports.Plugin{
		Name: "redis", Summary: "Streams of a Redis server. Each pipeline is a consumer group of its own.",
		Config: func() transports.Config { return &Config{URL: "redis://localhost:6379", Subscriptions: 1} },
	})
}

// Config is the `[transport.NAME]` table of `type = "redis"`.
type Config struct {
	URL           transports.Secret `toml:"url" doc:"The server, its user and its database; unix:// is a socket." example:"\"redis://localhost:6379/0\""`
	Subscriptions int               `toml:"subscriptions" doc:"How many messages of a pipeline are in flight. With more than one, messages of one device may run at the same time." min:"1" max:"100" example:"1"`
}

// Topic implements transports.Config.
func (c *Config) Topic(name string, use transports.Use) (transports.Topic, error) {
	return pubsub.Topic(name, use, transports.Topic{Window: c.Subscriptions, Broker: true})
}

var _ transports.Risky = (*Config)(nil)

// Risks implements transports.Risky.
func (c *Config) Risks() map[string]string {
	u, err := url.Parse(string(c.URL))
	if err != nil || u.Scheme != "redis" || transports.Loopback(u.Hostname()) {
		return nil
	}
	return map[string]string{"url": "password and messages are sent in the clear, because the server isn't on a loopback address; use rediss://"}
}

// New implements transports.Config.
func (c *Config) New(env transports.Env) (transports.Transport, error) {
	options, err := redis.ParseURL(string(c.URL))
	if err != nil {
		// err has the password.
		return nil, errors.New("url isn't a Redis URL, such as redis://user:password@localhost:6379/0")
	}
	// A client that retries a read by itself hides that a reply was lost. The entries of that
	// reply would stay with this consumer, and would never be delivered.
	options.MaxRetries = -1
	// A client writes defaults into its options, so each gets a copy.
	connect := func() redis.UniversalClient { own := *options; return redis.NewClient(&own) }
	return pubsub.New(env, pubsub.PubSub{
		Subscriptions: c.Subscriptions,
		Subscriber: func(pipeline string, n int, log watermill.LoggerAdapter) (message.Subscriber, error) {
			slot := fmt.Sprintf("%s/%d/", env.Host, n)
			consumer := slot + watermill.NewShortUUID()
			return redisstream.NewSubscriber(redisstream.SubscriberConfig{
				Client: connect(), Unmarshaller: fields{}, ConsumerGroup: pipeline, Consumer: consumer,
				// The subscription ends when the server is lost, so that the host knows of it and
				// opens another one.
				ShouldStopOnReadErrors: func(error) bool { return true }, DisableIndefiniteInitialBlock: true,
				// Unacked messages of an earlier subscription in this slot are claimed at once,
				// those of any other consumer after an hour.
				MaxIdleTime: time.Millisecond, ClaimInterval: time.Second,
				ShouldClaimPendingMessage: func(p redis.XPendingExt) bool {
					return p.Consumer != consumer && (strings.HasPrefix(p.Consumer, slot) || p.Idle > time.Hour)
				},
			}, log)
		},
		Publisher: func(log watermill.LoggerAdapter) (message.Publisher, error) {
			return redisstream.NewPublisher(redisstream.PublisherConfig{Client: connect(), Marshaller: fields{}}, log)
		},
	})
}
