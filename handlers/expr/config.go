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
		Summary:     "Filters and changes messages with expressions.",
		Produces:    "what it makes of messages",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Sends on the messages for which `when` is true. Expressions give them a new payload " +
	"and new metadata. In this example devices send JSON; a message of type `data` has the " +
	"frame in its field `payload`:\n\n" +
	"```toml\n" +
	"[pipeline.hot]\n" +
	"from    = \"devices:data\"\n" +
	"handler = { type = \"expr\", when = 'fromJSON(json.payload).temp > 30', payload = " +
	"'{device: device, celsius: fromJSON(json.payload).temp}', metadata = { \"header.host\" = " +
	"'json.host' } }\n" +
	"to      = \"broker:hot\"\n" +
	"```\n\n" +
	"[Expressions](../expressions.md) lists what an expression may contain. All expressions " +
	"see the message as it came. They change only what they set. The rest of the message " +
	"stays as it is, as with `passthrough`: the id, properties and headers, except those " +
	"that describe the delivery by the broker.\n\n" +
	"A payload that is a string is sent as it is. Anything else becomes JSON, and " +
	"`content_type` is set to `application/json`. A value of metadata is text; nil removes " +
	"the key.\n\n" +
	"An expression may fail, for example because a field is missing. That is a permanent " +
	"error, which names the expression, the column and the cause; `poison` stores the " +
	"message. For a field that may be missing, give a default: `json.temp ?? 0`. For nested " +
	"objects use `json?.a?.b`."

// Config is the configuration of expr.
type Config struct {
	When      string            `toml:"when" doc:"Which messages are sent on: an expression that gives true or false. Nil counts as false. Default: all." example:"'fromJSON(json.payload).temp > 30'"`
	Otherwise string            `toml:"otherwise" doc:"What happens to the others. drop: they are acked and dropped. error: each is a permanent error." enum:"drop,error"`
	Payload   string            `toml:"payload" doc:"An expression for the new payload. A string is sent as it is, anything else as JSON. Default: the payload isn't changed." example:"'{device: device, celsius: fromJSON(json.payload).temp}'"`
	Metadata  map[string]string `toml:"metadata" doc:"Metadata to set, each with an expression. Nil removes the key." example:"{ \"header.site\" = 'fromJSON(json.payload).site' }"`
	Remove    []string          `toml:"remove" doc:"Metadata to remove, before others are set." example:"[\"header.internal\"]"`
}

var defaults = Config{Otherwise: "drop"}

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	_, err := c.compile(expression.New(time.Now))
	if c.When == "" && c.Payload == "" && len(c.Metadata) == 0 && len(c.Remove) == 0 {
		err = errors.Join(err, errors.New("does nothing; set when, payload, metadata or remove, or use the handler passthrough"))
	}
	return err
}

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	return c.compile(expression.New(env.Now))
}

// compile compiles all expressions. It returns all problems, joined.
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
			errs = append(errs, handlers.Invalid("metadata."+key, "describes how a message was delivered, and isn't sent"))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return m, nil
}
