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

// MaxGroupCommand is the largest body of a command for a group, in bytes, which may list many devices.
const MaxGroupCommand = 16 << 20

// GroupCommand is a command that several devices are to get, each as a command of its own with the same id and the group's name.
//
// Its JSON is that of a [Command] without `device` and `address`, and with exactly one of `devices` (a list of names), `labels` (an object of
// strings: the devices that have all of these labels) and `all` (true).
type GroupCommand struct {
	// Command has no Device.
	Command
	Selection
}

// Selection says which devices are meant. Exactly one of its fields is set.
type Selection struct {
	Devices []string
	Labels  map[string]string
	All     bool
}

// ParseGroup reads the command for a group in body, as strictly as [Format.Parse], with the same kinds of errors. With a [*Rejection] the ID and the
// Group of what it returns are set as far as they can be trusted.
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

// ParseGroupMessage reads the command for a group that msg carries, as [Format.ParseMessage] reads a command.
func (f Format) ParseGroupMessage(msg *message.Message) (GroupCommand, error) {
	body, err := transports.Body(msg)
	if err != nil {
		return GroupCommand{}, unopenedError{err}
	}
	c, err := f.ParseGroup(body, msg.Metadata[transports.MessageID])
	c.clonePayload(msg)
	return c, err
}

// devices takes a list of names.
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

// labels takes an object of strings.
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
			p.reject("labels: a label's name %v", err)
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

// nameOf returns a value, which must be a string that can name something.
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

// selected checks which devices a command for a group is for.
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
		return errors.New("device: a command for a group has none; what it has is devices, labels or all")
	case len(given) == 0:
		return errors.New("devices, labels or all: one of them must say which devices are meant")
	case len(given) > 1:
		return fmt.Errorf("%s: only one of them may be given", strings.Join(given, " and "))
	}
	return nil
}
