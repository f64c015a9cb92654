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
		Summary:     "Adds up the results of a group, and says when all have ended.",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Takes the results of commands and the `expanded` messages of `fanout`, and publishes one summary of each group to the topic `to`, of type `group`:\n\n" +
	"```json\n{\"id\":\"n-1\",\"group\":\"north\",\"state\":\"finished\",\"code\":200,\"devices\":3,\"states\":{\"sent\":2,\"offline\":1},\"unfinished\":0,\"host\":\"gateway-1\",\"time\":\"...\"}\n```\n\n" +
	"`finished` means that every device's command has ended, in whatever state; `unfinished` (504) that this isn't waited for any longer: `timeout` is over since the group was first heard of. `unfinished` then says for how many devices no terminal " +
	"result came (those `held` are among them). A device's first terminal result counts; repetitions don't. Results of no group, and results that come after the summary, are left alone.\n\n" +
	"Its pipeline needs a queue of its own that gets all results and the `expanded` messages, such as a second queue bound to the exchange of the results:\n\n" +
	"```toml\n[transport.broker.topic.group-results]\nexchange    = \"device.results\"\nqueue       = \"group-results\"\nrouting_key = \"#\"\n\n[pipeline.groups-tally]\nfrom       = \"broker:group-results\"\nmiddleware = [\"poison\"]\n" +
	"handler    = { type = \"tally\", to = \"broker:summaries\" }\n```\n\n" +
	"**What is promised.** The count is kept in memory and nowhere else. Results that wait in the queue while the host is away are counted later; what was counted before a restart is forgotten, and a group that was open then ends as `unfinished`, " +
	"with a `detail` that says so, if anything of it comes after the restart, and else has no summary. The results themselves are the truth: who must know about each device reads those. " +
	"One host counts a group: a queue that several hosts consume (`competing`) splits it. If the inventory changes between a crash of `fanout` and its repetition, the summary has as many devices as the repetition. " +
	"A summary may come twice, with the same message id."

// Config is the configuration of tally.
type Config struct {
	To         handlers.TopicRef `toml:"to" doc:"Where the summaries go." example:"\"broker:summaries\"" required:"true"`
	Timeout    time.Duration     `toml:"timeout" doc:"How long after it was first heard of a group may take; then its summary says what is missing." min:"1s"`
	MaxResults int               `toml:"max_results" doc:"How many results are remembered, of all groups together; beyond it the oldest group ends as unfinished." unit:"results" min:"1"`
}

var defaults = Config{Timeout: time.Hour, MaxResults: 1_000_000}

// Validate reports all problems.
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
		Name: "pentrough_tally_open_groups", Help: "Groups whose summary is waited for.",
	}, t.openGroups)
	if err := env.Registerer.Register(open); err != nil {
		return nil, fmt.Errorf("registering the metrics of tally: %w", err)
	}
	t.life, t.end = context.WithCancel(context.Background())
	return t, nil
}
