package expression

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/expr-lang/expr/vm"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// Input is one message as programs see it. It is for one goroutine.
type Input struct {
	env *Environment
	msg *message.Message

	now      time.Time
	text     string
	hasText  bool
	json     any
	decoded  bool
	jsonFail error

	// written is how numbers were written, of any JSON that was read.
	written spellings

	steps, bytes, values, looks int
	began                       time.Time
}

// Message returns the input that a message is. The message must not change while it is used.
func (e *Environment) Message(msg *message.Message) *Input { return &Input{env: e, msg: msg} }

// variable returns what a name stands for.
func (in *Input) variable(name string) (any, error) {
	switch name {
	case "id":
		return in.id(), nil
	case "key":
		if key := handlers.Described(in.msg.Context()).Key; key != "" {
			return key, nil
		}
		return in.msg.Metadata[transports.Device], nil
	case "device":
		return in.msg.Metadata[transports.Device], nil
	case "topic":
		return message.SubscribeTopicFromCtx(in.msg.Context()), nil
	case "meta":
		// Without the methods of Watermill's type, one of which changes it.
		return map[string]string(in.msg.Metadata), nil
	case "size":
		return len(in.msg.Payload), nil
	case "text":
		return in.payload()
	default:
		return in.value()
	}
}

func (in *Input) id() string {
	if id := in.msg.Metadata[transports.MessageID]; id != "" {
		return id
	}
	return in.msg.UUID
}

// clock is the same all over one message.
func (in *Input) clock() time.Time {
	if in.now.IsZero() {
		in.now = in.env.now().UTC()
	}
	return in.now
}

// payload returns the payload as a string, opened if it is compressed, whatever bytes it has.
func (in *Input) payload() (string, error) {
	if !in.hasText {
		body, err := transports.Body(in.msg)
		if err != nil {
			return "", err
		}
		if n := len(body); n > in.env.limits.Payload {
			return "", fmt.Errorf("the payload has %d bytes; an expression reads up to %d", n, in.env.limits.Payload)
		}
		in.text, in.hasText = string(body), true
	}
	return in.text, nil
}

// value returns the payload's JSON, as much of it as the programs read.
func (in *Input) value() (any, error) {
	if !in.decoded {
		in.decoded = true
		in.json, in.jsonFail = in.decodePayload()
	}
	return in.json, in.jsonFail
}

func (in *Input) decodePayload() (any, error) {
	text, err := in.payload()
	if err != nil {
		return nil, err
	}
	v, err := in.decode(text, &in.env.reads)
	if err != nil {
		return nil, fmt.Errorf("reading the payload as JSON: %w", err)
	}
	return v, nil
}

// looksAtClock is how many steps are counted between two looks at the clock.
const looksAtClock = 16

// spend counts steps.
func (in *Input) spend(n int) error {
	in.steps += n
	if in.steps > in.env.limits.Steps || n < 0 {
		return fmt.Errorf("the expression took more than %d steps over this message", in.env.limits.Steps)
	}
	if in.looks += max(n, 1); in.looks < looksAtClock {
		return nil
	}
	in.looks = 0
	if ctx := in.msg.Context(); ctx.Err() != nil {
		return passing{context.Cause(ctx)}
	}
	if in.began.IsZero() {
		in.began = time.Now()
	} else if time.Since(in.began) > in.env.limits.Time {
		return passing{fmt.Errorf("the expression ran for more than %v", in.env.limits.Time)}
	}
	return nil
}

// grow counts bytes of strings that are made.
func (in *Input) grow(n int) error {
	in.bytes += n
	if in.bytes > in.env.limits.Bytes || n < 0 {
		return fmt.Errorf("the expression makes more than %d bytes of strings of this message", in.env.limits.Bytes)
	}
	return in.spend(n / bytesPerStep)
}

// run runs the program.
func (p *Program) run(in *Input) (any, error) {
	machine := vm.VM{MemoryBudget: uint(p.elements)}
	v, err := machine.Run(p.program, in)
	if err != nil {
		return nil, p.failed(err)
	}
	return v, nil
}

// Bool runs a program that wants [Bool].
func (p *Program) Bool(in *Input) (bool, error) {
	v, err := p.run(in)
	if err != nil || v == nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, p.failf("gives %s; allowed: %s", nameOf(v), p.want)
	}
	return b, nil
}

// Text runs a program that wants [Text]. It reports false for nil.
func (p *Program) Text(in *Input) (string, bool, error) {
	v, err := p.run(in)
	if err != nil || v == nil {
		return "", false, err
	}
	text, err := in.format(v)
	if err != nil {
		return "", false, p.failed(err)
	}
	if !utf8.ValidString(text) {
		return "", false, p.failf("gives what isn't valid UTF-8; toBase64 makes text of any bytes")
	}
	return text, true, nil
}

// Body runs a program that wants [Body]: strings are bytes as they are, anything else is JSON.
func (p *Program) Body(in *Input) (data []byte, isJSON bool, err error) {
	v, err := p.run(in)
	if err != nil {
		return nil, false, err
	}
	if v == nil {
		return nil, false, p.failf("gives nil; allowed: %s", p.want)
	}
	data, isJSON, err = in.body(v)
	if err != nil {
		return nil, false, p.failed(err)
	}
	return data, isJSON, nil
}

func (in *Input) body(v any) (data []byte, isJSON bool, err error) {
	switch v := v.(type) {
	case string:
		return []byte(v), false, nil
	case []byte:
		return v, false, nil
	}
	data, err = in.encode(v)
	return data, true, err
}

// List runs a program that wants [List] and returns each element as Body would, and whether it is JSON. It ends with an error beyond most elements.
// What is nothing but a way into the message's JSON is not decoded: its elements are as they are in the message.
func (p *Program) List(in *Input, most int) ([]Element, error) {
	if p.path != nil {
		text, err := in.payload()
		if err != nil {
			return nil, p.failed(err)
		}
		list, err := cut(text, p.path, most)
		if err != nil {
			return nil, p.failed(err)
		}
		return list, nil
	}
	v, err := p.run(in)
	if err != nil {
		return nil, err
	}
	elements := reflect.ValueOf(v)
	if kind := elements.Kind(); kind != reflect.Slice && kind != reflect.Array {
		return nil, p.failf("gives %s; allowed: %s", nameOf(v), p.want)
	}
	if n := elements.Len(); n > most {
		return nil, p.failf("gives %d elements; allowed: up to %d", n, most)
	}
	list := make([]Element, elements.Len())
	for i := range list {
		if list[i].Data, list[i].JSON, err = in.body(elements.Index(i).Interface()); err != nil {
			return nil, p.failed(fmt.Errorf("element %d: %w", i, err))
		}
	}
	return list, nil
}

// Element is one element of a list.
type Element struct {
	// Data is what a payload would be.
	Data []byte
	// JSON says that Data is JSON, not a string's bytes.
	JSON bool
}

// format returns a value as text.
func (in *Input) format(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case []byte:
		return string(v), nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case json.Number:
		return v.String(), nil
	case time.Time:
		return v.Format(time.RFC3339Nano), nil
	case time.Duration:
		return v.String(), nil
	}
	data, err := in.encode(v)
	return string(data), err
}
