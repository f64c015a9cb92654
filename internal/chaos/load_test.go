package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports/device"
)

// load is the mix of commands. Each field is a number out of a hundred.
type load struct {
	atMostOnce int
	// sets may be superseded, held are held while their device is offline, ttl have a time limit.
	sets, held, ttl int
	// expiring are dropped by the broker when their time is over.
	expiring int
	// groups are for a few devices at once.
	groups int
	// long don't fit into one packet.
	long int
	// requests expect an answer. Of a hundred requests, late are answered too late and never are
	// never answered.
	requests, late, never int
}

// usualLoad is the load of a usual run.
var usualLoad = load{atMostOnce: 20, sets: 20, held: 33, ttl: 10, expiring: 5, groups: 3, long: 5, requests: 10, late: 3, never: 2}

// shortestExpiration and longestExpiration bound the times that the broker knows of. They are
// longer than a command waits in calm times.
const (
	shortestExpiration = 2 * time.Second
	longestExpiration  = 4 * time.Second
)

// answerTimeout is how long the host waits for an answer. A late device is late by less than the
// same time, which leaves room on a busy machine.
const answerTimeout = 2 * time.Second

// answerMode is how a device answers a command. The line contains it, because devices know nothing
// else.
type answerMode string

const (
	answerNow   answerMode = "now"
	answerLate  answerMode = "late"
	answerNever answerMode = "never"
)

// publication is a command as it is published.
type publication struct {
	Command    // of a group without the device and its number
	to         []addressee
	answerMode answerMode // empty if it asks nothing
	padding    int        // bytes
}

type addressee struct {
	device string
	number int
}

// drawPublication makes a random command for one free device or for a few.
func (b *backEnd) drawPublication() *publication {
	of := func(n int) bool { return b.rng.IntN(100) < n }
	s := &publication{Command: Command{Mode: device.AtLeastOnce, Sent: time.Now(), Publishes: 1}}
	members := 1
	if of(b.load.groups) {
		members = 2 + b.rng.IntN(4)
		b.groups++
		s.ID = fmt.Sprintf("g-%06d", b.groups)
		s.Group = s.ID
	} else {
		s.ID = fmt.Sprintf("c-%06d", len(b.commands)+1)
		s.Malformed = of(1)
		if of(b.load.sets) {
			s.Sets = "setpoint"
		}
	}
	for range min(members, len(b.free)) {
		i := b.rng.IntN(len(b.free))
		address := b.free[i]
		b.free = slices.Delete(b.free, i, i+1)
		b.numbers[address]++
		s.to = append(s.to, addressee{address, b.numbers[address]})
	}
	if s.Group == "" {
		s.Device, s.Number = s.to[0].device, s.to[0].number
	}
	s.Held = of(b.load.held)
	if of(b.load.ttl) {
		s.TTL = time.Duration(200+b.rng.IntN(8000)) * time.Millisecond
	}
	if s.Group == "" && !s.Malformed && of(b.load.expiring) {
		s.Expiration = shortestExpiration + time.Duration(b.rng.IntN(int(longestExpiration-shortestExpiration)/1e6))*time.Millisecond
	}
	if of(b.load.atMostOnce) {
		s.Mode = device.AtMostOnce
	}
	if of(b.load.long) {
		s.padding = 1000 + b.rng.IntN(2900) // a line may have 4096
	}
	if s.WantsAnswer = of(b.load.requests); s.WantsAnswer {
		switch n := b.rng.IntN(100); {
		case n < b.load.late:
			s.answerMode = answerLate
		case n < b.load.late+b.load.never:
			s.answerMode = answerNever
		default:
			s.answerMode = answerNow
		}
	}
	return s
}

func (s *publication) exchange() string {
	if s.Group != "" {
		return "device.groups"
	}
	return "device.commands"
}

func (s *publication) body() []byte {
	fields := map[string]any{"id": s.ID, "cmd": line{s.ID, s.answerMode, s.padding}.String(), "mode": s.Mode}
	if s.Group != "" {
		var devices []string
		for _, to := range s.to {
			devices = append(devices, to.device)
		}
		fields["devices"], fields["group"] = devices, s.Group
	} else {
		fields["device"] = s.Device
	}
	if s.Sets != "" {
		fields["supersede"] = s.Sets
	}
	if s.Held {
		fields["offline"] = device.Hold
	}
	if s.TTL > 0 {
		fields["expires_at"] = s.Sent.Add(s.TTL).Format(time.RFC3339Nano)
	}
	if s.WantsAnswer {
		fields["reply"] = true
	}
	body, _ := json.Marshal(fields) // strings always work
	if s.Malformed {
		body = body[:len(body)/2]
	}
	return body
}

// expiration returns the command's expiration in AMQP's form.
func (s *publication) expiration() string {
	if s.Expiration == 0 {
		return ""
	}
	return strconv.FormatInt(s.Expiration.Milliseconds(), 10)
}

// headers returns headers of every type, as clients in other languages set them, for some
// commands.
func (s *publication) headers() amqp.Table {
	n := s.to[0].number
	if n%10 != 0 {
		return nil
	}
	return amqp.Table{
		"text": s.ID, "int": int32(n), "long": int64(n), "float": 0.5, "bool": true, "bytes": []byte{0, 255}, "none": nil,
		"time": time.Unix(int64(n), 0), "decimal": amqp.Decimal{Scale: 2, Value: 1234}, "list": []any{"a", int32(1)}, "table": amqp.Table{"a": int16(1)},
	}
}

// line is the text that a device reads: the id, the answer mode if any, and padding.
type line struct {
	id         string
	answerMode answerMode
	padding    int
}

func (l line) String() string {
	text := l.id
	if l.answerMode != "" {
		text += " " + string(l.answerMode)
	}
	if l.padding > 0 {
		text += " " + strings.Repeat("x", l.padding)
	}
	return text
}

// parseLine parses a line. It returns an incomplete line as an id that was never published.
func parseLine(text string) line {
	fields := strings.Fields(text)
	var l line
	for i, field := range fields {
		switch {
		case i == 0:
			l.id = field
		case strings.Trim(field, "x") == "":
			l.padding = len(field)
		default:
			l.answerMode = answerMode(field)
		}
	}
	switch l.answerMode {
	case "", answerNow, answerLate, answerNever:
		if l.String() == text {
			return l
		}
	}
	const few = 60
	return line{id: text[:min(few, len(text))]}
}

// answerLine answers a line that is a request.
func (f *fleet) answerLine(ctx context.Context, d *fakeDevice, w *wire, l line) {
	say := func() {
		a := Answer{ID: l.id, Device: d.address, Connection: w.number, Text: "ok " + l.id, Time: time.Now()}
		f.mu.Lock()
		f.answers = append(f.answers, a)
		f.mu.Unlock()
		_, _ = w.Write([]byte(a.Text + "\n")) // the connection may be lost
	}
	switch l.answerMode {
	case answerNow:
		say()
	case answerLate:
		f.work.Go(func() {
			if pause(ctx, answerTimeout+100*time.Millisecond+rand.N(answerTimeout/4)); ctx.Err() == nil {
				say()
			}
		})
	}
}

// readBuffer is the smallest kernel buffer of a device; Linux doubles it.
const readBuffer = 4 << 10

// setSmallReadBuffer makes the kernel buffer little for a connection, so that a device that
// doesn't read soon has only part of a command.
func setSmallReadBuffer(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, readBuffer)
	}); e != nil {
		return e
	}
	return err
}
