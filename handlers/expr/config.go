package expr

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/expression"
	"github.com/pentrough/pentrough/transports"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:        "expr",
		Summary:     "Filters and maps messages by expressions.",
		Produces:    "what it makes of messages",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Sends messages on, those for which `when` is true, with the payload and metadata that expressions give them:\n\n" +
	"```toml\n" +
	"[pipeline.hot]\n" +
	"from    = \"devices:data\"\n" +
	"handler = { type = \"expr\", when = 'json.temp > 30', payload = '{device: device, celsius: json.temp}', metadata = { \"header.site\" = 'json.site' } }\n" +
	"to      = \"broker:hot\"\n" +
	"```\n\n" +
	"What an expression can say is in [expressions](../expressions.md). All of them see the message as it came. Whatever isn't named stays as it is, as with `passthrough`: id, properties and headers, but for those of the broker that it " +
	"came through.\n\n" +
	"A payload that is a string is sent as it is; anything else becomes JSON, and `content_type` then says so. Metadata are text; nil takes the key away.\n\n" +
	"An expression that fails over a message, as where a field is missing, is a permanent error that names the expression, the column and the cause; `poison` keeps the message. `json.temp ?? 0` has a value " +
	"for fields that may be missing, `json?.a?.b` for objects."

// Config is the configuration of expr.
type Config struct {
	When      string            `toml:"when" doc:"Which messages are sent on: an expression that gives true or false, nil being false. Default: all." example:"'json.temp > 30'"`
	Otherwise string            `toml:"otherwise" doc:"What becomes of the others: drop takes them as done, error makes each a permanent error." enum:"drop,error"`
	Payload   string            `toml:"payload" doc:"The new payload, an expression: a string as it is, anything else as JSON. Default: the payload as it came." example:"'{device: device, celsius: json.temp}'"`
	Metadata  map[string]string `toml:"metadata" doc:"Metadata to set, each an expression; nil takes the key away." example:"{ \"header.site\" = 'json.site' }"`
	Remove    []string          `toml:"remove" doc:"Metadata to take away, before others are set." example:"[\"header.internal\"]"`
}

var defaults = Config{Otherwise: "drop"}

// Validate reports all problems.
func (c *Config) Validate() error {
	_, err := c.compile(expression.New(time.Now))
	if c.When == "" && c.Payload == "" && len(c.Metadata) == 0 && len(c.Remove) == 0 {
		err = errors.Join(err, errors.New("does nothing; allowed: when, payload, metadata or remove, or the handler passthrough"))
	}
	return err
}

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	return c.compile(expression.New(env.Now))
}

// compile compiles all expressions, and joins what is wrong with them.
func (c *Config) compile(env *expression.Environment) (*mapper, error) {
	m := &mapper{env: env, strict: c.Otherwise == "error", remove: c.Remove}
	var errs []error
	program := func(field, source string, want expression.Want) *expression.Program {
		p, err := env.Compile(source, want)
		if err != nil {
			errs = append(errs, expression.Invalid(field, err))
		}
		return p
	}
	if c.When != "" {
		m.when = program("when", c.When, expression.Bool)
	}
	if c.Payload != "" {
		m.payload = program("payload", c.Payload, expression.Body)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Metadata)) {
		m.metadata = append(m.metadata, setting{key, program("metadata."+key, c.Metadata[key], expression.Text)})
		if transports.OfDelivery(key) {
			errs = append(errs, handlers.Invalid("metadata."+key, "is how a message came, and isn't sent"))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return m, nil
}
