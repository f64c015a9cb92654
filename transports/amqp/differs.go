package amqp

import (
	"fmt"
	"regexp"

	amqp "github.com/rabbitmq/amqp091-go"
)

// inequivalent is how RabbitMQ says that a queue or exchange is there with another property:
//
//	PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none but current is the value '5' of type 'long'
var differenceText = regexp.MustCompile(`inequivalent arg '([^']*)' for (queue|exchange) '[^']*' in vhost '[^']*': received (.+) but current is (.+)$`)

// spelt is a value as RabbitMQ spells it where it isn't a word of its own, such as none or true.
var quotedValue = regexp.MustCompile(`^(?:the value )?'(.*?)'(?: of type '[a-z0-9]+')?$`)

// settings are the keys of a topic's table that have another name than what the broker compares.
var settings = map[string]map[string]string{
	"queue":    {amqp.QueueTypeArg: "queue_type", limitArg: "delivery_limit", "durable": "durable", "exclusive": "exclusive", "auto_delete": "auto_delete"},
	"exchange": {"type": "kind", "durable": "durable", "internal": "internal", "auto_delete": "auto_delete"},
}

// tables are the tables of a topic that hold all other arguments.
var tables = map[string]string{"queue": "arguments", "exchange": "exchange_arguments"}

// differs is an error of a declaration that the broker refused because what is there is another one.
type differenceError struct {
	error
	// kind is queue or exchange; setting is the key of the topic's table that has the value ours; theirs
	// is the broker's.
	kind, setting, ours, theirs string
}

func (d *differenceError) Unwrap() error { return d.error }

func (d *differenceError) Error() string {
	return fmt.Sprintf("the %s is there with %s = %s, and this topic has %s; make both the same, set declare = false to take the %s as it is, or delete it: %v",
		d.kind, d.setting, d.theirs, d.ours, d.kind, d.error)
}

// compare returns what the broker says of a declaration, with the setting that differs if that is why it
// was refused.
func explainDifference(err error) error {
	err = plainError(err)
	refused, ok := err.(*refusal)
	if !ok || refused.cause.Code != amqp.PreconditionFailed {
		return err
	}
	said := differenceText.FindStringSubmatch(refused.cause.Reason)
	if said == nil {
		return err
	}
	argument, kind := said[1], said[2]
	setting, ok := settings[kind][argument]
	if !ok {
		setting = tables[kind] + "." + argument
	}
	return &differenceError{error: err, kind: kind, setting: setting, ours: unquoteValue(said[3]), theirs: unquoteValue(said[4])}
}

func unquoteValue(text string) string {
	if said := quotedValue.FindStringSubmatch(text); said != nil {
		return said[1]
	}
	return text
}
