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
	fieldSets // the field that Format.Supersede names
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

// commandParser builds a command from the fields of a JSON object.
type commandParser struct {
	scan              jsontext.Scanner[[]byte]
	size              int                    // of the body, in bytes
	value             jsontext.Token[[]byte] // of the current field
	format            Format
	supersedeByFormat string // the value of the field that Format.Supersede names
	hasSupersede      bool   // the field supersede is given
	c                 Command
	seen              [fieldCount]bool
	address           string
	cmd               []byte
	ids               [2]jsontext.Token[[]byte] // the first values of the field id
	given             int                       // the number of elements in ids
	rejection         *Rejection
	selection         *Selection // nil: the command is for one device
}

func newParser(f Format, body []byte) commandParser {
	return commandParser{scan: jsontext.New(body), size: len(body), c: Command{Encoding: Text}, format: f}
}

// reject records the first problem of the command.
func (p *commandParser) reject(format string, args ...any) {
	if p.rejection == nil {
		p.rejection = &Rejection{Detail: fmt.Sprintf(format, args...)}
	}
}

// readField reads the current field into the command.
func (p *commandParser) readField() {
	name, err := p.scan.Name.Text()
	if err != nil {
		p.reject("the name of a field %v", err)
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
		p.reject("%s: unknown field", quoteClipped(name))
		return
	}
	if p.selection == nil && (f == fieldDevices || f == fieldLabels || f == fieldAll) {
		p.reject("%s: belongs to a command for a group; the handler fanout takes such commands", name)
		return
	}
	if p.seen[f] {
		p.reject("%s: given twice", name)
		p.clearRepeated(f)
		return
	}
	p.seen[f] = true
	if p.value.Kind == 'n' {
		return
	}
	switch f {
	case fieldID:
		p.c.ID = p.readName("id")
	case fieldDevice:
		p.c.Device = p.readName("device")
	case fieldAddress:
		p.address = p.readName("address")
	case fieldCmd:
		p.cmd = p.readText("cmd")
	case fieldEncoding:
		p.c.Encoding = Encoding(p.readText("encoding"))
	case fieldExpiresAt:
		p.readExpiresAt()
	case fieldTTL:
		p.c.TTL = p.readDuration("ttl", maxTTL)
	case fieldMode:
		p.readMode()
	case fieldSupersede:
		p.readSupersede()
	case fieldReply:
		p.readReply()
	case fieldTimeout:
		p.c.Timeout = p.readDuration("timeout", MaxTimeout)
	case fieldPriority:
		p.readPriority()
	case fieldSets:
		p.supersedeByFormat = p.readName(p.format.Supersede)
	case fieldOffline:
		p.readOffline()
	case fieldGroup:
		p.c.Group = p.readName("group")
	case fieldDevices:
		p.readDevices()
	case fieldLabels:
		p.readLabels()
	default: // all
		p.readAll()
	}
}

// clearRepeated deletes the value of a field that is given twice.
func (p *commandParser) clearRepeated(f field) {
	switch f {
	case fieldID:
		p.c.ID = ""
	case fieldDevice, fieldAddress:
		p.c.Device, p.address = "", ""
	case fieldGroup:
		p.c.Group = ""
	}
}

// readText returns the current value, which must be a string. It returns nil only if it rejects
// the value.
func (p *commandParser) readText(name string) []byte {
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

// readName returns the current value, which must be a string and a valid name.
func (p *commandParser) readName(name string) string {
	b := p.readText(name)
	if b == nil {
		return ""
	}
	if err := printable.CheckName(b); err != nil {
		p.reject("%s: %v", name, err)
		return ""
	}
	return string(b)
}

func (p *commandParser) readExpiresAt() {
	b := p.readText("expires_at")
	if b == nil {
		return
	}
	if err := p.c.ExpiresAt.UnmarshalText(b); err != nil {
		p.reject("expires_at: %s is not a time as in RFC 3339, such as 2026-05-01T12:00:00Z", quoteClipped(b))
	} else if p.c.ExpiresAt.IsZero() {
		p.reject("expires_at: must not be in the year 1")
	}
}

// readDuration returns the current value, which must be above 0 and at most the given limit.
func (p *commandParser) readDuration(name string, most time.Duration) (d time.Duration) {
	var err error
	switch p.value.Kind {
	case '"':
		b := p.readText(name)
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
		p.reject("%s: %s is neither a duration, such as \"30s\", nor a number of seconds", name, quoteToken(p.value))
	case d <= 0 || d > most:
		p.reject("%s: %s is not above 0 and at most %s", name, quoteToken(p.value), boundText(most))
	default:
		return d
	}
	return 0
}

// boundText returns the text of a limit for an error.
func boundText(d time.Duration) string {
	if d == maxTTL {
		return "100 years"
	}
	return d.String()
}

func (p *commandParser) readPriority() {
	if b := p.value.Raw; p.value.Kind == '0' && len(b) == 1 {
		p.c.Priority = int(b[0] - '0')
		return
	}
	p.reject("priority: %s is not a number from 0 to %d", quoteToken(p.value), MaxPriority)
}

func (p *commandParser) readReply() {
	switch p.value.Kind {
	case 't':
		p.c.Reply = Yes
	case 'f':
		p.c.Reply = No
	default:
		p.reject("reply: must be true or false")
	}
}

func (p *commandParser) readMode() {
	switch m := Mode(p.readText("mode")); m {
	case AtLeastOnce, AtMostOnce:
		p.c.Mode = m
	default:
		p.reject("mode: %s, allowed are at-least-once and at-most-once", quoteClipped([]byte(m)))
	}
}

// readSupersede reads a name, or false, which means none.
func (p *commandParser) readSupersede() {
	p.hasSupersede = true
	switch p.value.Kind {
	case 'f':
	case '"':
		p.c.Supersede = p.readName("supersede")
	default:
		p.reject("supersede: must be the name of the setting that the command changes, or false")
	}
}

func (p *commandParser) readOffline() {
	switch o := OfflinePolicy(p.readText("offline")); o {
	case Fail, Hold:
		p.c.Offline = o
	default:
		p.reject("offline: %s, allowed are fail and hold", quoteClipped([]byte(o)))
	}
}

// checkFields checks the rules that concern several fields.
func (p *commandParser) checkFields(messageID string) {
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
	if !p.hasSupersede {
		c.Supersede = p.supersedeByFormat
	}
	most := MaxCommand
	if p.selection != nil {
		most = MaxGroupCommand
		if err := p.checkSelection(); err != nil {
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
		p.decodePayload()
	}
}

// decodePayload sets the payload from cmd.
func (p *commandParser) decodePayload() {
	var err error
	switch p.c.Encoding {
	case Text, Hex, Base64:
		if p.c.Payload, err = decodeText(p.c.Encoding, p.cmd); err != nil {
			p.reject("cmd: %v", err)
		}
	default:
		p.reject("encoding: %s, allowed are text, hex and base64", quoteClipped([]byte(p.c.Encoding)))
	}
}

// quoteIDs returns the given ids, quoted and shortened. It includes the message's id if that isn't
// a valid name.
func (p *commandParser) quoteIDs(messageID string) string {
	var all []string
	for _, id := range p.ids[:p.given] {
		all = append(all, quoteToken(id))
	}
	if messageID != "" && printable.CheckName(messageID) != nil {
		all = append(all, quoteClipped([]byte(messageID)))
	}
	return strings.Join(all, ", ")
}

// quoteToken quotes a value for an error.
func quoteToken(t jsontext.Token[[]byte]) string {
	if b, err := t.Text(); err == nil && t.Kind == '"' {
		return quoteClipped(b)
	}
	return quoteClipped(t.Raw)
}

// quoteClipped quotes and shortens a value that the sender wrote.
func quoteClipped(b []byte) string {
	const most = 64
	if len(b) > most {
		return fmt.Sprintf("%.*q...", most, b)
	}
	return fmt.Sprintf("%q", b)
}
