package schedule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// shortestInterval is the shortest interval. With a shorter one the host would do nothing but make
// ticks.
const shortestInterval = 10 * time.Millisecond

// Config is the `[transport.NAME]` table of `type = "schedule"`.
type Config struct {
	Topics map[string]TopicConfig `toml:"topic" doc:"The topics, each with its own ticks. A topic needs a table."`
}

// TopicConfig is one `[transport.NAME.topic.TOPIC]` table: when ticks are due, and what their
// messages contain.
type TopicConfig struct {
	Every    time.Duration     `toml:"every" doc:"The interval, counted from the host's start. A topic has either every or cron." min:"10ms" example:"\"30s\""`
	Cron     string            `toml:"cron" doc:"The times on the wall clock when a tick is due: minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly, @yearly." example:"\"0 4 * * *\""`
	Zone     string            `toml:"zone" doc:"The time zone of cron, or Local for the machine's time zone. Default: UTC." example:"\"Europe/Berlin\""`
	Jitter   time.Duration     `toml:"jitter" doc:"The longest random delay of each tick, so that hosts don't act at the same moment. It must be less than every; with cron, keep it below the time between two ticks." min:"0s" example:"\"5s\""`
	AtStart  bool              `toml:"at_start" doc:"Whether there is one more tick when the host starts."`
	Payload  string            `toml:"payload" doc:"The payload of the message. {time}, {unix}, {n} and {id} are replaced by the tick's time, number and id." example:"'{\"device\":\"10.0.0.7\",\"cmd\":\"status\"}'"`
	Metadata map[string]string `toml:"metadata" doc:"The metadata of the message, in addition to the tick's own." example:"{ content_type = \"application/json\" }"`
}

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Topics)) {
		topic := c.Topics[name]
		topic.validate(func(field, format string, args ...any) {
			errs = append(errs, transports.Invalid("topic."+name+field, format, args...))
		})
	}
	return errors.Join(errs...)
}

func (t *TopicConfig) validate(invalid func(field, format string, args ...any)) {
	switch {
	case t.Every == 0 && t.Cron == "":
		invalid("", "needs every (an interval) or cron (times of the wall clock)")
	case t.Every != 0 && t.Cron != "":
		invalid(".cron", "can't be used together with every")
	case t.Every != 0 && t.Every < shortestInterval:
		invalid(".every", "%s is less than %s", t.Every, shortestInterval)
	case t.Every != 0 && t.Zone != "":
		invalid(".zone", "is only for cron; an interval has no zone")
	}
	if t.Cron != "" {
		if _, err := parseCron(t.Cron); err != nil {
			invalid(".cron", "%v", err)
		}
	}
	if _, err := time.LoadLocation(t.Zone); err != nil {
		invalid(".zone", "%q is not a time zone such as %q", t.Zone, "Europe/Berlin")
	}
	switch {
	case t.Jitter < 0:
		invalid(".jitter", "%s is less than 0s", t.Jitter)
	case t.Every >= shortestInterval && t.Jitter >= t.Every:
		invalid(".jitter", "%s is not less than every, %s", t.Jitter, t.Every)
	}
	for _, key := range slices.Sorted(maps.Keys(t.Metadata)) {
		switch {
		case key == "":
			invalid(".metadata", "a key is empty")
		case slices.Contains(tickKeys, key) || strings.HasPrefix(key, prefix):
			invalid(".metadata", "every tick sets %s itself", key)
		}
	}
}

// Topic describes a topic: each consumer has one tick at a time.
func (c *Config) Topic(name string, use transports.Use) (transports.Topic, error) {
	if use == transports.Produce {
		return transports.Topic{}, errors.New("nothing can be published to a schedule")
	}
	if _, ok := c.Topics[name]; !ok {
		known := "none"
		if len(c.Topics) > 0 {
			known = strings.Join(slices.Sorted(maps.Keys(c.Topics)), ", ")
		}
		return transports.Topic{}, fmt.Errorf("topic %q has no table; topics with a table: %s", name, known)
	}
	return transports.Topic{Window: 1}, nil
}

// New builds the transport.
func (c *Config) New(env transports.Env) (transports.Transport, error) {
	k := &clock{
		env: env, topics: map[string]*topic{}, subscribers: map[*subscriber]struct{}{}, closed: make(chan struct{}),
	}
	k.ticking, k.quiesce = context.WithCancel(context.Background())
	for name, config := range c.Topics {
		rhythm, err := config.rhythm(env.Now)
		if err != nil {
			return nil, fmt.Errorf("topic %s: %w", name, err)
		}
		k.topics[name] = &topic{clock: k, name: name, config: config, rhythm: rhythm, consumers: map[string]*consumer{}}
	}
	if err := env.Registerer.Register(k); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return k, nil
}

// rhythm returns the rhythm of the topic's ticks.
func (t *TopicConfig) rhythm(now func() time.Time) (rhythm, error) {
	if t.Every > 0 {
		return &interval{every: t.Every, now: now}, nil
	}
	spec, err := parseCron(t.Cron)
	if err != nil {
		return nil, fmt.Errorf("reading cron: %w", err)
	}
	zone, err := time.LoadLocation(t.Zone)
	if err != nil {
		return nil, fmt.Errorf("loading zone %q: %w", t.Zone, err)
	}
	return &alarm{calendar: newCalendar(spec, zone), now: now}, nil
}
