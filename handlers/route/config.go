package route

import (
	"errors"
	"fmt"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/expression"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:        "route",
		Summary:     "Sends each message to the topic that expressions choose.",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Sends each message on as it is, as `passthrough` does, to one of several topics. Either the first of `routes` whose `when` is true:\n\n" +
	"```toml\n" +
	"[pipeline.sort]\n" +
	"from = \"devices:data\"\n" +
	"[pipeline.sort.handler]\n" +
	"type   = \"route\"\n" +
	"routes = [\n" +
	"  { when = 'json.temp > 30', to = \"broker:hot\" },\n" +
	"  { when = 'text startsWith \"ALARM\"', to = \"broker:alarms\" },\n" +
	"]\n" +
	"else   = \"broker:other\"\n" +
	"```\n\n" +
	"or the one of `topics` that the text which `by` gives stands for:\n\n" +
	"```toml\n" +
	"handler = { type = \"route\", by = 'meta.type', topics = { event = \"broker:events\", data = \"broker:data\" }, unmatched = \"drop\" }\n" +
	"```\n\n" +
	"What an expression can say is in [expressions](../expressions.md). Every topic stands in the file, so that `validate` sees those that aren't there and loops. A message that matches nothing goes to `else`; " +
	"without it, it is a permanent error, or dropped. An expression that fails is a permanent error, and no further route is tried: `json.temp ?? 0` has a value for fields that may be missing."

// Config is the configuration of route.
type Config struct {
	Routes    []Route                      `toml:"routes" doc:"Conditions in order, each with its topic; the first that is true counts." example:"[{ when = 'json.temp > 30', to = \"broker:hot\" }]"`
	By        string                       `toml:"by" doc:"In place of routes: an expression that gives a key of topics." example:"'meta.type'"`
	Topics    map[string]handlers.TopicRef `toml:"topics" doc:"The topics that by chooses from, by what it gives." example:"{ event = \"broker:events\" }"`
	Else      handlers.TopicRef            `toml:"else" doc:"Where messages go that match nothing." example:"\"broker:other\""`
	Unmatched string                       `toml:"unmatched" doc:"Without else, what becomes of messages that match nothing: error makes each a permanent error, drop takes it as done." enum:"error,drop"`
}

// Route is one way for messages.
type Route struct {
	When string            `toml:"when" doc:"Which messages go this way: an expression that gives true or false, nil being false." example:"'json.temp > 30'" required:"true"`
	To   handlers.TopicRef `toml:"to" doc:"The topic that they go to." example:"\"broker:hot\"" required:"true"`
}

var defaults = Config{Unmatched: "error"}

// Validate reports all problems.
func (c *Config) Validate() error {
	_, err := c.compile(expression.New(time.Now))
	return err
}

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	r, err := c.compile(expression.New(env.Now))
	if err != nil {
		return nil, err
	}
	// The topics are prepared before the first message.
	for _, to := range r.targets() {
		if _, err := env.Publisher(to); err != nil {
			return nil, fmt.Errorf("publishing to %s: %w", to, err)
		}
	}
	return r, nil
}

// compile compiles all expressions, and joins what is wrong.
func (c *Config) compile(env *expression.Environment) (*router, error) {
	r := &router{env: env, topics: c.Topics, otherwise: c.Else, drop: c.Unmatched == "drop"}
	var errs []error
	fail := func(field, message string) { errs = append(errs, handlers.Invalid(field, "%s", message)) }
	switch {
	case len(c.Routes) == 0 && c.By == "":
		fail("routes", "is missing; allowed: routes, or by and topics")
	case len(c.Routes) > 0 && c.By != "":
		fail("by", "stands beside routes; allowed: one of them")
	case c.By != "" && len(c.Topics) == 0:
		fail("topics", "is missing; it has the topics that by chooses from")
	case c.By == "" && len(c.Topics) > 0:
		fail("topics", "stands without by")
	}
	for i, route := range c.Routes {
		field := fmt.Sprintf("routes[%d]", i)
		p, err := env.Compile(route.When, expression.Bool)
		if err != nil {
			errs = append(errs, expression.Invalid(field+".when", err))
		}
		if route.To == "" {
			fail(field+".to", "is missing; it names the topic")
		}
		r.ways = append(r.ways, way{p, route.To})
	}
	if c.By != "" {
		p, err := env.Compile(c.By, expression.Text)
		if err != nil {
			errs = append(errs, expression.Invalid("by", err))
		}
		r.by = p
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return r, nil
}
