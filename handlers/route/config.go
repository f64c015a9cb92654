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

const description = "Sends each message on unchanged, as `passthrough` does, to one of several topics. " +
	"There are two ways to choose the topic. With `routes`, the first route whose `when` is " +
	"true chooses. In this example devices send JSON, or a text that begins with `ALARM`; a message of type `data` has " +
	"the frame in its field `payload`:\n\n" +
	"```toml\n" +
	"[pipeline.sort]\n" +
	"from = \"devices:data\"\n" +
	"[pipeline.sort.handler]\n" +
	"type   = \"route\"\n" +
	"routes = [\n" +
	"  { when = 'json.payload startsWith \"ALARM\"', to = \"broker:alarms\" },\n" +
	"  { when = 'fromJSON(json.payload).temp > 30', to = \"broker:hot\" },\n" +
	"]\n" +
	"else   = \"broker:other\"\n" +
	"```\n\n" +
	"With `by`, an expression gives a key of `topics`:\n\n" +
	"```toml\n" +
	"handler = { type = \"route\", by = 'meta.type', topics = { event = \"broker:events\", data " +
	"= \"broker:data\" }, unmatched = \"drop\" }\n" +
	"```\n\n" +
	"[Expressions](../expressions.md) lists what an expression may contain. All topics are " +
	"in the file, so `validate` finds missing topics and loops. A message that matches " +
	"nothing goes to `else`. Without `else`, `unmatched` decides: such a message is a permanent " +
	"error, or is dropped.\n\n" +
	"If an expression fails, that is a permanent error, and no later route is tried. For a " +
	"field that may be missing, give a default: `json.temp ?? 0`."

// Config is the configuration of route.
type Config struct {
	Routes    []Route                      `toml:"routes" doc:"Conditions, each with its topic. The first condition that is true chooses." example:"[{ when = 'fromJSON(json.payload).temp > 30', to = \"broker:hot\" }]"`
	By        string                       `toml:"by" doc:"Instead of routes: an expression that gives a key of topics." example:"'meta.type'"`
	Topics    map[string]handlers.TopicRef `toml:"topics" doc:"The topic for each key that by can give." example:"{ event = \"broker:events\" }"`
	Else      handlers.TopicRef            `toml:"else" doc:"The topic of messages that match nothing." example:"\"broker:other\""`
	Unmatched string                       `toml:"unmatched" doc:"What happens to a message that matches nothing, if else isn't set. error: a permanent error. drop: it is acked and dropped." enum:"error,drop"`
}

// Route is a topic with the condition of its messages.
type Route struct {
	When string            `toml:"when" doc:"The condition of this route: an expression that gives true or false. Nil counts as false." example:"'fromJSON(json.payload).temp > 30'" required:"true"`
	To   handlers.TopicRef `toml:"to" doc:"The topic of this route." example:"\"broker:hot\"" required:"true"`
}

var defaults = Config{Unmatched: "error"}

// Validate returns all problems of the configuration, joined.
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
	// Prepare the topics before the first message comes.
	for _, to := range r.allTopics() {
		if _, err := env.Publisher(to); err != nil {
			return nil, fmt.Errorf("publishing to %s: %w", to, err)
		}
	}
	return r, nil
}

// compile compiles all expressions. It returns all problems, joined.
func (c *Config) compile(env *expression.Environment) (*router, error) {
	r := &router{env: env, topics: c.Topics, otherwise: c.Else, drop: c.Unmatched == "drop"}
	var errs []error
	fail := func(field, message string) { errs = append(errs, handlers.Invalid(field, "%s", message)) }
	switch {
	case len(c.Routes) == 0 && c.By == "":
		fail("routes", "is missing; allowed: routes, or by and topics")
	case len(c.Routes) > 0 && c.By != "":
		fail("by", "can't be used together with routes")
	case c.By != "" && len(c.Topics) == 0:
		fail("topics", "is missing; by needs it")
	case c.By == "" && len(c.Topics) > 0:
		fail("topics", "needs by")
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
