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
		Summary:     "Makes of a message with a list one for each element.",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Sends each element of a list on as a message of its own, in order. The list is what the expression `items` gives: the payload's JSON as it comes, a part of it, the lines of a text, or anything else that is a list:\n\n" +
	"| `items` | a message for each |\n|---|---|\n" +
	"| `'json'` | element of the payload, a JSON list |\n" +
	"| `'json.records'` | element of that field |\n" +
	"| `'lines(text)'` | line of the payload |\n" +
	"| `'filter(json.records, .ok)'` | element that is `ok` |\n" +
	"| `'map(json.records, ({device: json.device, value: #}))'` | element, in an object with the device |\n\n" +
	"What an expression can say is in [expressions](../expressions.md). An element that is a string is sent as it is, anything else as JSON; where `items` only names a place in the payload, " +
	"an element's JSON is, byte for byte, what is there.\n\n" +
	"**Ids.** A message's id is that of the whole, a slash and the element's number from 1 on: `order-17/3`. So the parts have the same ids when the whole comes again, and `dedup` behind them knows them. An id that gets too long for an AMQP " +
	"property becomes a UUID made of it. A message without an id gets a new one each time, and so do its parts.\n\n" +
	"Parts have the metadata of the whole, but for those of the broker that it came through, and beside them `split.id`, `split.index` (from 1 on) and `split.count`. The whole is acked when all parts are confirmed. " +
	"An empty list is done at once. What isn't a list, or has more than `max` elements, is a permanent error, and nothing of it is sent."

// Config is the configuration of split.
type Config struct {
	Items string `toml:"items" doc:"The list: an expression." example:"'json.records'"`
	Max   int    `toml:"max" doc:"The most elements of one message." unit:"elements" min:"1" max:"1000000"`
}

var defaults = Config{Items: "json", Max: 10_000}

// Validate reports all problems.
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
