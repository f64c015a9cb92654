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

// Input is one message as programs see it. It must be used by one goroutine at a time.
type Input struct {
	env *Environment
	msg *message.Message

	now      time.Time
	text     string
	hasText  bool
	json     any
	decoded  bool
	jsonFail error

	// written has the original text of numbers in the JSON that was read.
	written spellings

	// What this run has taken so far, and the steps since the last look at the clock.
	steps, bytes, values, sinceClock int
	startedAt                        time.Time
}

// Message returns a message as an input. The message must not change while the input is used.
func (e *Environment) Message(msg *message.Message) *Input { return &Input{env: e, msg: msg} }

// variable returns the value of a name.
func (in *Input) variable(name string) (any, error) {
	switch name {
	case "id":
		return in.messageID(), nil
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
		// A plain map, because one method of Watermill's type changes the metadata.
		return map[string]string(in.msg.Metadata), nil
	case "size":
		return len(in.msg.Payload), nil
	case "text":
		return in.payloadText()
	default:
		return in.payloadJSON()
	}
}

func (in *Input) messageID() string {
	if id := in.msg.Metadata[transports.MessageID]; id != "" {
		return id
	}
	return in.msg.UUID
}

// currentTime returns the time of the first call, so that it is the same for the whole message.
func (in *Input) currentTime() time.Time {
	if in.now.IsZero() {
		in.now = in.env.now().UTC()
	}
	return in.now
}

// payloadText returns the payload as a string of any bytes. It decompresses a compressed payload.
func (in *Input) payloadText() (string, error) {
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

// payloadJSON returns the parts of the payload's JSON that the programs read.
func (in *Input) payloadJSON() (any, error) {
	if !in.decoded {
		in.decoded = true
		in.json, in.jsonFail = in.decodePayload()
	}
	return in.json, in.jsonFail
}

func (in *Input) decodePayload() (any, error) {
	text, err := in.payloadText()
	if err != nil {
		return nil, err
	}
	v, err := in.decode(text, &in.env.reads)
	if err != nil {
		return nil, fmt.Errorf("reading the payload as JSON: %w", err)
	}
	return v, nil
}

// clockEvery is the number of steps after which the clock and the context are checked.
const clockEvery = 16

// spendSteps counts steps. It returns an error if the run has taken too many or too long.
func (in *Input) spendSteps(n int) error {
	in.steps += n
	if in.steps > in.env.limits.Steps || n < 0 {
		return fmt.Errorf("the expression took more than %d steps over this message", in.env.limits.Steps)
	}
	if in.sinceClock += max(n, 1); in.sinceClock < clockEvery {
		return nil
	}
	in.sinceClock = 0
	if ctx := in.msg.Context(); ctx.Err() != nil {
		return passing{context.Cause(ctx)}
	}
	if in.startedAt.IsZero() {
		in.startedAt = time.Now()
	} else if time.Since(in.startedAt) > in.env.limits.Time {
		return passing{fmt.Errorf("the expression ran for more than %v", in.env.limits.Time)}
	}
	return nil
}

// countBytes counts bytes of strings before they are made.
func (in *Input) countBytes(n int) error {
	in.bytes += n
	if in.bytes > in.env.limits.Bytes || n < 0 {
		return fmt.Errorf("the expression makes more than %d bytes of strings from this message", in.env.limits.Bytes)
	}
	return in.spendSteps(n / bytesPerStep)
}

// run runs the program over a message.
func (p *Program) run(in *Input) (any, error) {
	machine := vm.VM{MemoryBudget: uint(p.elements)}
	v, err := machine.Run(p.program, in)
	if err != nil {
		return nil, p.runError(err)
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
		return false, p.runErrorf("gives %s; allowed: %s", nameOf(v), p.want)
	}
	return b, nil
}

// Text runs a program that wants [Text]. It reports false for nil.
func (p *Program) Text(in *Input) (string, bool, error) {
	v, err := p.run(in)
	if err != nil || v == nil {
		return "", false, err
	}
	text, err := in.formatText(v)
	if err != nil {
		return "", false, p.runError(err)
	}
	if !utf8.ValidString(text) {
		return "", false, p.runErrorf("gives text that isn't valid UTF-8; toBase64 turns any bytes into text")
	}
	return text, true, nil
}

// Body runs a program that wants [Body]. A string is returned as its bytes, and anything else as
// JSON.
func (p *Program) Body(in *Input) (data []byte, isJSON bool, err error) {
	v, err := p.run(in)
	if err != nil {
		return nil, false, err
	}
	if v == nil {
		return nil, false, p.runErrorf("gives nil; allowed: %s", p.want)
	}
	data, isJSON, err = in.formatBody(v)
	if err != nil {
		return nil, false, p.runError(err)
	}
	return data, isJSON, nil
}

func (in *Input) formatBody(v any) (data []byte, isJSON bool, err error) {
	switch v := v.(type) {
	case string:
		return []byte(v), false, nil
	case []byte:
		return v, false, nil
	}
	data, err = in.encode(v)
	return data, true, err
}

// List runs a program that wants [List] and returns its elements. Each is as Body would return it.
// A list of more than most elements is an error.
//
// If the expression is only a path into json, List doesn't decode the elements: they keep the text
// that they have in the message.
func (p *Program) List(in *Input, most int) ([]Element, error) {
	if p.path != nil {
		text, err := in.payloadText()
		if err != nil {
			return nil, p.runError(err)
		}
		list, err := cutList(text, p.path, most)
		if err != nil {
			return nil, p.runError(err)
		}
		return list, nil
	}
	v, err := p.run(in)
	if err != nil {
		return nil, err
	}
	elements := reflect.ValueOf(v)
	if kind := elements.Kind(); kind != reflect.Slice && kind != reflect.Array {
		return nil, p.runErrorf("gives %s; allowed: %s", nameOf(v), p.want)
	}
	if n := elements.Len(); n > most {
		return nil, p.runErrorf("gives %d elements; allowed: up to %d", n, most)
	}
	list := make([]Element, elements.Len())
	for i := range list {
		if list[i].Data, list[i].JSON, err = in.formatBody(elements.Index(i).Interface()); err != nil {
			return nil, p.runError(fmt.Errorf("element %d: %w", i, err))
		}
	}
	return list, nil
}

// Element is one element of a list.
type Element struct {
	// Data is the element as a payload.
	Data []byte
	// JSON is set if Data is JSON, and not the bytes of a string.
	JSON bool
}

// formatText returns a value as text.
func (in *Input) formatText(v any) (string, error) {
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
