package device

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/transports"
)

// MaxGroupCommand is the largest body of a command for a group, in bytes. It is larger than
// MaxCommand because the body may list many devices.
const MaxGroupCommand = 16 << 20

// GroupCommand is a command for several devices. Each device gets a command with the same id and
// the group's name.
//
// Its JSON is that of a [Command] without device and address. It also has exactly one of three
// fields:
//
//   - devices is a list of names.
//   - labels is an object of strings. It selects the devices that have all of the labels.
//   - all is true. It selects every device.
type GroupCommand struct {
	// Command is the command that each device gets. It has no Device.
	Command
	Selection
}

// Selection selects devices. Exactly one of its fields is set.
type Selection struct {
	Devices []string
	Labels  map[string]string
	All     bool
}

// ParseGroup parses the command for a group in body. Its errors are of the same kinds as those of
// [Format.Parse]. With a [*Rejection], the returned command has ID and Group if they are valid.
func (f Format) ParseGroup(body []byte, messageID string) (GroupCommand, error) {
	var s Selection
	p := newParser(f, body)
	p.selection = &s
	err := p.parseBody(messageID)
	if err != nil {
		s = Selection{}
	}
	return GroupCommand{p.c, s}, err
}

// ParseGroupMessage parses the command for a group in msg, like [Format.ParseMessage].
func (f Format) ParseGroupMessage(msg *message.Message) (GroupCommand, error) {
	body, err := transports.Body(msg)
	if err != nil {
		return GroupCommand{}, unopenedError{err}
	}
	c, err := f.ParseGroup(body, msg.Metadata[transports.MessageID])
	c.clonePayload(msg)
	return c, err
}

// readDevices reads a list of names.
func (p *commandParser) readDevices() {
	if p.value.Kind != '[' {
		p.reject("devices: must be a list of devices")
		return
	}
	names := []string{}
	list := jsontext.New(p.value.Raw)
	for list.Begin('['); list.Next(); {
		name, err := readNameToken(list.Value())
		if err != nil {
			p.reject("devices[%d]: %v", len(names), err)
			return
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		p.reject("devices: is empty")
	}
	p.selection.Devices = names
}

// readLabels reads an object of strings.
func (p *commandParser) readLabels() {
	if p.value.Kind != '{' {
		p.reject(`labels: must be an object, such as {"site": "north"}`)
		return
	}
	labels := map[string]string{}
	members := jsontext.New(p.value.Raw)
	for members.Begin('{'); members.Next(); {
		key, err := members.Name.Text()
		if err != nil {
			p.reject("labels: the name of a label %v", err)
			return
		}
		if _, twice := labels[string(key)]; twice {
			p.reject("labels: %s: given twice", quoteClipped(key))
			return
		}
		label := members.Value()
		if label.Kind != '"' {
			p.reject("labels: %s: must be a string", quoteClipped(key))
			return
		}
		value, err := label.Text()
		if err != nil {
			p.reject("labels: %s: %v", quoteClipped(key), err)
			return
		}
		labels[string(key)] = string(value)
	}
	if len(labels) == 0 {
		p.reject(`labels: is empty; "all": true means every device`)
	}
	p.selection.Labels = labels
}

func (p *commandParser) readAll() {
	if p.value.Kind != 't' {
		p.reject("all: must be true")
		return
	}
	p.selection.All = true
}

// readNameToken returns a value, which must be a string and a valid name.
func readNameToken(t jsontext.Token[[]byte]) (string, error) {
	if t.Kind != '"' {
		return "", errors.New("must be a string")
	}
	b, err := t.Text()
	if err != nil {
		return "", err
	}
	if err := printable.CheckName(b); err != nil {
		return "", err
	}
	return string(b), nil
}

// checkSelection checks that the command selects devices in exactly one way.
func (p *commandParser) checkSelection() error {
	var given []string
	if p.selection.Devices != nil {
		given = append(given, "devices")
	}
	if p.selection.Labels != nil {
		given = append(given, "labels")
	}
	if p.selection.All {
		given = append(given, "all")
	}
	switch {
	case p.c.Device != "":
		return errors.New("device: a command for a group must have devices, labels or all instead")
	case len(given) == 0:
		return errors.New("devices, labels or all: one of them must be given")
	case len(given) > 1:
		return fmt.Errorf("%s: only one of them may be given", strings.Join(given, " and "))
	}
	return nil
}
