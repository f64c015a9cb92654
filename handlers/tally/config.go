package tally

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:        "tally",
		Summary:     "Adds up the results of a group, and publishes a summary when all commands have ended.",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Takes the results of commands and the `expanded` messages of `fanout`. It publishes " +
	"one summary of each group to the topic `to`, with the type `group`:\n\n" +
	"```json\n" +
	"{\"id\":\"n-1\",\"group\":\"north\",\"state\":\"finished\",\"code\":200,\"devices\":3,\"states\":{\"sent\":2,\"offline\":1},\"unfinished\":0,\"host\":\"gateway-1\",\"time\":\"...\"}\n" +
	"```\n\n" +
	"The state `finished` (200) means that the command of every device has ended, in any " +
	"state. The state `unfinished` (504) means that `timeout` has passed since the group's " +
	"first message. Then the field `unfinished` has the number of devices without a " +
	"terminal result, including those with a held command. The first terminal result of a " +
	"device counts, and later ones don't. The handler ignores results without a group, and " +
	"results that come after the summary.\n\n" +
	"The pipeline needs its own queue, which gets all results and the `expanded` messages. " +
	"For example, bind a second queue to the exchange of the results:\n\n" +
	"```toml\n" +
	"[transport.broker.topic.group-results]\n" +
	"exchange    = \"device.results\"\n" +
	"queue       = \"group-results\"\n" +
	"routing_key = \"#\"\n\n" +
	"[pipeline.groups-tally]\n" +
	"from       = \"broker:group-results\"\n" +
	"middleware = [\"poison\"]\n" +
	"handler    = { type = \"tally\", to = \"broker:summaries\" }\n" +
	"```\n\n" +
	"**What is guaranteed.** The counts are only in memory. Results that wait in the queue " +
	"while the host is stopped are counted later. A restart loses the counts of all " +
	"groups without a summary. If another message of such a group comes after the restart, " +
	"the group ends as `unfinished`, with a `detail` that says so. Otherwise the group has no summary. To know " +
	"about each device, read the results themselves.\n\n" +
	"Only one host may consume the queue. If several hosts consume it (`competing`), each " +
	"counts only a part of a group. If the inventory changes between a crash of `fanout` and " +
	"the repeated expansion, the summary has the number of devices of the repeated " +
	"expansion. A summary may be published twice, with the same message id."

// Config is the configuration of tally.
type Config struct {
	To         handlers.TopicRef `toml:"to" doc:"The topic of the summaries." example:"\"broker:summaries\"" required:"true"`
	Timeout    time.Duration     `toml:"timeout" doc:"How long a group may take after its first message. Then its summary says how many devices are unfinished." min:"1s"`
	MaxResults int               `toml:"max_results" doc:"The most results that are remembered, of all groups together. Above it the oldest group ends as unfinished." unit:"results" min:"1"`
}

var defaults = Config{Timeout: time.Hour, MaxResults: 1_000_000}

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	var errs []error
	if c.To == "" {
		errs = append(errs, handlers.Invalid("to", "is missing; it names the topic of the summaries"))
	}
	if c.Timeout <= 0 {
		errs = append(errs, handlers.Invalid("timeout", "%s is not above 0s", c.Timeout))
	}
	if c.MaxResults < 1 {
		errs = append(errs, handlers.Invalid("max_results", "is %d, must be at least 1", c.MaxResults))
	}
	return errors.Join(errs...)
}

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	out, err := env.Publisher(c.To)
	if err != nil {
		return nil, fmt.Errorf("publishing summaries: %w", err)
	}
	t := &tally{Config: *c, env: env, out: out, began: env.Now(), groups: map[key]*group{}}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pentrough_tally_open_groups", Help: "Groups without a summary yet.",
	}, t.openGroups)
	if err := env.Registerer.Register(open); err != nil {
		return nil, fmt.Errorf("registering the metrics of tally: %w", err)
	}
	t.life, t.end = context.WithCancel(context.Background())
	return t, nil
}
