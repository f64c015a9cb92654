package amqp

import (
	"errors"
	"fmt"
	"regexp"

	amqp "github.com/rabbitmq/amqp091-go"
)

// differenceText matches RabbitMQ's message that a queue or exchange exists with another property:
//
//	PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/':
//	received none but current is the value '5' of type 'long'
//
// RabbitMQ writes it in one line.
var differenceText = regexp.MustCompile(`inequivalent arg '([^']*)' for (queue|exchange) '[^']*' in vhost '[^']*': received (.+) but current is (.+)$`)

// quotedValue matches a value in quotes. RabbitMQ writes words such as none and true without
// quotes.
var quotedValue = regexp.MustCompile(`^(?:the value )?'(.*?)'(?: of type '[a-z0-9]+')?$`)

// settings maps the properties that the broker compares to the keys of a topic's table.
var settings = map[string]map[string]string{
	"queue":    {amqp.QueueTypeArg: "queue_type", limitArg: "delivery_limit", "durable": "durable", "exclusive": "exclusive", "auto_delete": "auto_delete"},
	"exchange": {"type": "kind", "durable": "durable", "internal": "internal", "auto_delete": "auto_delete"},
}

// tables are the keys of a topic's table that have the arguments without a key of their own.
var tables = map[string]string{"queue": "arguments", "exchange": "exchange_arguments"}

// differenceError says that the broker refused a declaration, because the queue or exchange exists
// with other properties.
type differenceError struct {
	error
	// kind is queue or exchange. setting is the key of the topic's table. ours is its value, and
	// theirs the broker's value.
	kind, setting, ours, theirs string
}

func (d *differenceError) Unwrap() error { return d.error }

func (d *differenceError) Error() string {
	return fmt.Sprintf("the %s exists with %s = %s, and this topic has %s; make both the same, set declare = false to use the %s as it is, or delete it: %v",
		d.kind, d.setting, d.theirs, d.ours, d.kind, d.error)
}

// explainDifference returns the broker's error for a declaration. If a property differs, the error
// names the setting.
func explainDifference(err error) error {
	err = plainError(err)
	refused, ok := errors.AsType[*refusal](err)
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

// unquoteValue returns a value of RabbitMQ's message without quotes and type.
func unquoteValue(text string) string {
	if said := quotedValue.FindStringSubmatch(text); said != nil {
		return said[1]
	}
	return text
}
