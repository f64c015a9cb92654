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

// load is what commands are like: how many of a hundred are what.
type load struct {
	atMostOnce int
	// sets may be superseded, held are held while their device is away, ttl have a time.
	sets, held, ttl int
	// expiring are dropped by the broker when their time is over.
	expiring int
	// groups are to a few devices at once.
	groups int
	// long don't fit into a packet.
	long int
	// asks are to be answered; of a hundred of these so many are late, and so many never are.
	asks, late, never int
}

// usual is the load of a run.
var usual = load{atMostOnce: 20, sets: 20, held: 33, ttl: 10, expiring: 5, groups: 3, long: 5, asks: 10, late: 3, never: 2}

// shortestExpiration and longestExpiration bound the times that the broker knows of. They are longer
// than a command waits in calm times.
const (
	shortestExpiration = 2 * time.Second
	longestExpiration  = 4 * time.Second
)

// askingTimeout is how long the host waits for an answer. A device that is late is so by less than as much again, which leaves a busy machine its time.
const askingTimeout = 2 * time.Second

// manner is how a device answers a command. Its line says so, since devices know nothing else.
type manner string

const (
	answersNow   manner = "now"
	answersLate  manner = "late"
	answersNever manner = "never"
)

// sending is a command as it is published.
type sending struct {
	Command // of a group without the device and its number
	to      []addressee
	manner  manner // empty if it asks nothing
	padding int    // bytes
}

type addressee struct {
	device string
	number int
}

// draw makes a command to a device whose turn it is, or to a few.
func (b *backEnd) draw() *sending {
	of := func(n int) bool { return b.rng.IntN(100) < n }
	s := &sending{Command: Command{Mode: device.AtLeastOnce, Sent: time.Now(), Publishes: 1}}
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
	for range min(members, len(b.turn)) {
		i := b.rng.IntN(len(b.turn))
		address := b.turn[i]
		b.turn = slices.Delete(b.turn, i, i+1)
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
	if s.Asks = of(b.load.asks); s.Asks {
		switch n := b.rng.IntN(100); {
		case n < b.load.late:
			s.manner = answersLate
		case n < b.load.late+b.load.never:
			s.manner = answersNever
		default:
			s.manner = answersNow
		}
	}
	return s
}

func (s *sending) exchange() string {
	if s.Group != "" {
		return "device.groups"
	}
	return "device.commands"
}

func (s *sending) body() []byte {
	fields := map[string]any{"id": s.ID, "cmd": line{s.ID, s.manner, s.padding}.String(), "mode": s.Mode}
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
	if s.Asks {
		fields["reply"] = true
	}
	body, _ := json.Marshal(fields) // strings always work
	if s.Malformed {
		body = body[:len(body)/2]
	}
	return body
}

// expiration is the command's as AMQP has it.
func (s *sending) expiration() string {
	if s.Expiration == 0 {
		return ""
	}
	return strconv.FormatInt(s.Expiration.Milliseconds(), 10)
}

// headers are those that clients in other languages set: of every type, on some commands.
func (s *sending) headers() amqp.Table {
	n := s.to[0].number
	if n%10 != 0 {
		return nil
	}
	return amqp.Table{
		"text": s.ID, "int": int32(n), "long": int64(n), "float": 0.5, "bool": true, "bytes": []byte{0, 255}, "none": nil,
		"time": time.Unix(int64(n), 0), "decimal": amqp.Decimal{Scale: 2, Value: 1234}, "list": []any{"a", int32(1)}, "table": amqp.Table{"a": int16(1)},
	}
}

// line is what a device reads: the id, and how it is to answer, if it is, and what makes it long.
type line struct {
	id      string
	manner  manner
	padding int
}

func (l line) String() string {
	text := l.id
	if l.manner != "" {
		text += " " + string(l.manner)
	}
	if l.padding > 0 {
		text += " " + strings.Repeat("x", l.padding)
	}
	return text
}

// parseLine is the other way. What isn't whole is an id that nobody published.
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
			l.manner = manner(field)
		}
	}
	switch l.manner {
	case "", answersNow, answersLate, answersNever:
		if l.String() == text {
			return l
		}
	}
	const few = 60
	return line{id: text[:min(few, len(text))]}
}

// answer has the device answer a line that asks.
func (f *fleet) answer(ctx context.Context, d *fakeDevice, w *wire, l line) {
	say := func() {
		a := Answer{ID: l.id, Device: d.address, Connection: w.number, Text: "ok " + l.id, Time: time.Now()}
		f.mu.Lock()
		f.answers = append(f.answers, a)
		f.mu.Unlock()
		_, _ = w.Write([]byte(a.Text + "\n")) // the connection may be lost
	}
	switch l.manner {
	case answersNow:
		say()
	case answersLate:
		f.work.Go(func() {
			if pause(ctx, askingTimeout+100*time.Millisecond+rand.N(askingTimeout/4)); ctx.Err() == nil {
				say()
			}
		})
	}
}

// readBuffer is what the kernel keeps for a device at least; Linux doubles it.
const readBuffer = 4 << 10

// littleRoom has a connection take little that isn't read, so that a device which doesn't read soon has its command partly.
func littleRoom(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, readBuffer)
	}); e != nil {
		return e
	}
	return err
}
