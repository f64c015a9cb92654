package split

import (
	"errors"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/expression"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:        "split",
		Summary:     "Produces one message for each element of a list.",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Produces a message for each element of a list, in order. The expression `items` gives " +
	"the list:\n\n" +
	"| `items` | one message for each |\n" +
	"|---|---|\n" +
	"| `'json'` | element of the payload, which is a JSON list |\n" +
	"| `'json.records'` | element of that field |\n" +
	"| `'lines(text)'` | line of the payload |\n" +
	"| `'filter(json.records, .ok)'` | element that is `ok` |\n" +
	"| `'map(json.records, ({device: json.device, value: #}))'` | element, in an object with the device |\n\n" +
	"[Expressions](../expressions.md) lists what an expression may contain. An element that " +
	"is a string is sent as it is, and any other element as JSON. If `items` only names a " +
	"place in the payload, the JSON of an element is copied byte for byte.\n\n" +
	"**Ids.** The id of a produced message is that of the original message, a slash, and " +
	"the element's number from 1 on: `order-17/3`. So the ids are the same if the original " +
	"message is redelivered, and `dedup` in a later pipeline knows them. An id that is too " +
	"long for an AMQP property is replaced by a UUID, which is made from it. A message " +
	"without an id gets a new one for each delivery, and so do the messages made from it.\n\n" +
	"**Metadata.** A produced message has the metadata of the original one, except those " +
	"that describe its delivery by the broker. It also has `split.id`, `split.index` (from " +
	"1 on) and `split.count`.\n\n" +
	"The handler acks the original message when all produced messages are confirmed, or at " +
	"once if the list is empty. If `items` gives no list, or one with more than `max` " +
	"elements, it is a permanent error, and no message is sent."

// Config is the configuration of split.
type Config struct {
	Items string `toml:"items" doc:"An expression for the list." example:"'json.records'"`
	Max   int    `toml:"max" doc:"The most elements of a list." unit:"elements" min:"1" max:"1000000"`
}

var defaults = Config{Items: "json", Max: 10_000}

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	_, err := c.compile(expression.New(time.Now))
	return err
}

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	return c.compile(expression.New(env.Now))
}

func (c *Config) compile(env *expression.Environment) (*splitter, error) {
	var errs []error
	items, err := env.Compile(c.Items, expression.List)
	if err != nil {
		errs = append(errs, expression.Invalid("items", err))
	}
	if c.Max < 1 {
		errs = append(errs, handlers.Invalid("max", "is %d, must be at least 1", c.Max))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &splitter{env: env, items: items, most: c.Max}, nil
}
