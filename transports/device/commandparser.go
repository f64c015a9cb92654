package device

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/internal/printable"
)

// field is a field of a command.
type field int

const (
	fieldUnknown field = iota
	fieldID
	fieldDevice
	fieldAddress
	fieldCmd
	fieldEncoding
	fieldExpiresAt
	fieldTTL
	fieldReply
	fieldTimeout
	fieldMode
	fieldOffline
	fieldSupersede
	fieldPriority
	fieldGroup
	fieldDevices
	fieldLabels
	fieldAll
	fieldSets // the one that the format names
	fieldCount
)

func fieldOf(name []byte) field {
	switch string(name) {
	case "id":
		return fieldID
	case "device":
		return fieldDevice
	case "address":
		return fieldAddress
	case "cmd":
		return fieldCmd
	case "encoding":
		return fieldEncoding
	case "expires_at":
		return fieldExpiresAt
	case "ttl":
		return fieldTTL
	case "reply":
		return fieldReply
	case "timeout":
		return fieldTimeout
	case "mode":
		return fieldMode
	case "offline":
		return fieldOffline
	case "supersede":
		return fieldSupersede
	case "priority":
		return fieldPriority
	case "group":
		return fieldGroup
	case "devices":
		return fieldDevices
	case "labels":
		return fieldLabels
	case "all":
		return fieldAll
	default:
		return fieldUnknown
	}
}

// commandParser collects a command from an object's members.
type commandParser struct {
	scan      jsontext.Scanner[[]byte]
	size      int                    // of the body, in bytes
	value     jsontext.Token[[]byte] // of the current member
	format    Format
	sets      string // by the field that the format names
	ownSets   bool   // the field supersede says it
	c         Command
	seen      [fieldCount]bool
	address   string
	cmd       []byte
	ids       [2]jsontext.Token[[]byte] // the first values that were given as ids
	given     int                       // how many of them there are
	rejection *Rejection
	selection *Selection // nil: the command is for one device
}

func newParser(f Format, body []byte) commandParser {
	return commandParser{scan: jsontext.New(body), size: len(body), c: Command{Encoding: Text}, format: f}
}

// reject keeps the first thing that is wrong.
func (p *commandParser) reject(format string, args ...any) {
	if p.rejection == nil {
		p.rejection = &Rejection{Detail: fmt.Sprintf(format, args...)}
	}
}

// member takes the current member in.
func (p *commandParser) member() {
	name, err := p.scan.Name.Text()
	if err != nil {
		p.reject("a field's name %v", err)
		return
	}
	f := fieldOf(name)
	if f == fieldUnknown && len(name) > 0 && string(name) == p.format.Supersede {
		f = fieldSets
	}
	if f == fieldID && p.value.Kind != 'n' && p.given < len(p.ids) {
		p.ids[p.given] = p.value
		p.given++
	}
	if f == fieldUnknown {
		p.reject("%s: unknown field", clip(name))
		return
	}
	if p.selection == nil && (f == fieldDevices || f == fieldLabels || f == fieldAll) {
		p.reject("%s: belongs to a command for a group, which is for the handler fanout", name)
		return
	}
	if p.seen[f] {
		p.reject("%s: given twice", name)
		p.distrust(f)
		return
	}
	p.seen[f] = true
	if p.value.Kind == 'n' {
		return
	}
	switch f {
	case fieldID:
		p.c.ID = p.named("id")
	case fieldDevice:
		p.c.Device = p.named("device")
	case fieldAddress:
		p.address = p.named("address")
	case fieldCmd:
		p.cmd = p.text("cmd")
	case fieldEncoding:
		p.c.Encoding = Encoding(p.text("encoding"))
	case fieldExpiresAt:
		p.expiresAt()
	case fieldTTL:
		p.c.TTL = p.duration("ttl", maxTTL)
	case fieldMode:
		p.mode()
	case fieldSupersede:
		p.supersede()
	case fieldReply:
		p.reply()
	case fieldTimeout:
		p.c.Timeout = p.duration("timeout", MaxTimeout)
	case fieldPriority:
		p.priority()
	case fieldSets:
		p.sets = p.named(p.format.Supersede)
	case fieldOffline:
		p.offline()
	case fieldGroup:
		p.c.Group = p.named("group")
	case fieldDevices:
		p.devices()
	case fieldLabels:
		p.labels()
	default: // all
		p.all()
	}
}

// distrust forgets what was said twice.
func (p *commandParser) distrust(f field) {
	switch f {
	case fieldID:
		p.c.ID = ""
	case fieldDevice, fieldAddress:
		p.c.Device, p.address = "", ""
	case fieldGroup:
		p.c.Group = ""
	}
}

// text returns the current value, which must be a string; never nil unless it is rejected.
func (p *commandParser) text(name string) []byte {
	if p.value.Kind != '"' {
		p.reject("%s: must be a string", name)
		return nil
	}
	b, err := p.value.Text()
	if err != nil {
		p.reject("%s: %v", name, err)
	}
	return b
}

// named returns the current value, which must be a string that can name something.
func (p *commandParser) named(name string) string {
	b := p.text(name)
	if b == nil {
		return ""
	}
	if err := printable.CheckName(b); err != nil {
		p.reject("%s: %v", name, err)
		return ""
	}
	return string(b)
}

func (p *commandParser) expiresAt() {
	b := p.text("expires_at")
	if b == nil {
		return
	}
	if err := p.c.ExpiresAt.UnmarshalText(b); err != nil {
		p.reject("expires_at: %s is not a time as in RFC 3339, such as 2026-05-01T12:00:00Z", clip(b))
	} else if p.c.ExpiresAt.IsZero() {
		p.reject("expires_at: is the year 1")
	}
}

// duration returns the current value, which must be above 0 and no more than most.
func (p *commandParser) duration(name string, most time.Duration) (d time.Duration) {
	var err error
	switch p.value.Kind {
	case '"':
		b := p.text(name)
		if b == nil {
			return 0
		}
		d, err = time.ParseDuration(string(b))
	case '0':
		var seconds float64
		seconds, err = strconv.ParseFloat(string(p.value.Raw), 64)
		if d = most + 1; seconds <= most.Seconds() {
			d = time.Duration(seconds * float64(time.Second))
		}
	default:
		err = errors.ErrUnsupported
	}
	switch {
	case err != nil:
		p.reject("%s: %s is neither a duration, such as \"30s\", nor a number of seconds", name, shown(p.value))
	case d <= 0 || d > most:
		p.reject("%s: %s is not above 0 and at most %s", name, shown(p.value), shownBound(most))
	default:
		return d
	}
	return 0
}

// shownBound returns a bound for people.
func shownBound(d time.Duration) string {
	if d == maxTTL {
		return "100 years"
	}
	return d.String()
}

func (p *commandParser) priority() {
	if b := p.value.Raw; p.value.Kind == '0' && len(b) == 1 {
		p.c.Priority = int(b[0] - '0')
		return
	}
	p.reject("priority: %s is not a number from 0 to %d", shown(p.value), MaxPriority)
}

func (p *commandParser) reply() {
	switch p.value.Kind {
	case 't':
		p.c.Reply = Yes
	case 'f':
		p.c.Reply = No
	default:
		p.reject("reply: must be true or false")
	}
}

func (p *commandParser) mode() {
	switch m := Mode(p.text("mode")); m {
	case AtLeastOnce, AtMostOnce:
		p.c.Mode = m
	default:
		p.reject("mode: %s, allowed are at-least-once and at-most-once", clip([]byte(m)))
	}
}

// supersede takes a name, or false, which is none.
func (p *commandParser) supersede() {
	p.ownSets = true
	switch p.value.Kind {
	case 'f':
	case '"':
		p.c.Supersede = p.named("supersede")
	default:
		p.reject("supersede: must be the name of what the command sets, or false")
	}
}

func (p *commandParser) offline() {
	switch o := OfflinePolicy(p.text("offline")); o {
	case Fail, Hold:
		p.c.Offline = o
	default:
		p.reject("offline: %s, allowed are fail and hold", clip([]byte(o)))
	}
}

// finish checks what concerns several fields.
func (p *commandParser) finish(messageID string) {
	c := &p.c
	if c.ID == "" && messageID != "" {
		if err := printable.CheckName(messageID); err != nil {
			p.reject("message_id: %v", err)
		} else {
			c.ID = messageID
		}
	}
	switch {
	case c.Device == "":
		c.Device = p.address
	case p.address != "" && p.address != c.Device:
		p.reject("device %q and address %q differ", c.Device, p.address)
		c.Device = ""
	}
	if p.rejection != nil {
		return
	}
	if !p.ownSets {
		c.Supersede = p.sets
	}
	most := MaxCommand
	if p.selection != nil {
		most = MaxGroupCommand
		if err := p.selected(); err != nil {
			p.reject("%v", err)
			return
		}
	}
	switch {
	case p.size > most:
		p.reject("the command is %d bytes long, allowed are %d", p.size, most)
	case c.Device == "" && p.selection == nil:
		p.reject("device: missing")
	case p.cmd == nil:
		p.reject("cmd: missing")
	case c.TTL != 0 && !c.ExpiresAt.IsZero():
		p.reject("ttl and expires_at: only one of them may be given")
	default:
		p.decode()
	}
}

// decode makes the payload of cmd.
func (p *commandParser) decode() {
	var err error
	switch p.c.Encoding {
	case Text, Hex, Base64:
		if p.c.Payload, err = decode(p.c.Encoding, p.cmd); err != nil {
			p.reject("cmd: %v", err)
		}
	default:
		p.reject("encoding: %s, allowed are text, hex and base64", clip([]byte(p.c.Encoding)))
	}
}

// shownIDs are the ids that were given, quoted and shortened. The message's is one only where it can't name the command.
func (p *commandParser) shownIDs(messageID string) string {
	var all []string
	for _, id := range p.ids[:p.given] {
		all = append(all, shown(id))
	}
	if messageID != "" && printable.CheckName(messageID) != nil {
		all = append(all, clip([]byte(messageID)))
	}
	return strings.Join(all, ", ")
}

// shown quotes the value for a detail.
func shown(t jsontext.Token[[]byte]) string {
	if b, err := t.Text(); err == nil && t.Kind == '"' {
		return clip(b)
	}
	return clip(t.Raw)
}

// clip quotes a value of the sender's for a detail.
func clip(b []byte) string {
	const most = 64
	if len(b) > most {
		return fmt.Sprintf("%.*q...", most, b)
	}
	return fmt.Sprintf("%q", b)
}
