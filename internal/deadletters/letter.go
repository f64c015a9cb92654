// Package deadletters keeps messages that couldn't be handled as rows of a SQLite file or a PostgreSQL database, where people look at them,
// send them again or drop them.
//
// A host puts rows there through a [Store], which is what the handler "store" is lent. An [Operator] works on them, beside hosts and other
// operators: [Store.Operate] returns one, and [Store.Look] one that only reads.
package deadletters

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// State is what became of a row.
type State int

// The states of a row.
const (
	// New: nobody has done anything about it.
	New State = iota + 1
	// Replaying: an operator is about to send it again, or was when he was cut off.
	Replaying
	// Replayed: it was sent again, and the broker has it.
	Replayed
	// Dropped: an operator said that nothing needs to be done.
	Dropped
)

// States are all states.
var States = []State{New, Replaying, Replayed, Dropped}

func (s State) String() string {
	switch s {
	case New:
		return "new"
	case Replaying:
		return "replaying"
	case Replayed:
		return "replayed"
	case Dropped:
		return "dropped"
	default:
		return fmt.Sprintf("state %d", int(s))
	}
}

// Row is a dead letter in a store.
type Row struct {
	handlers.DeadLetter
	// Number is the row's own, never given twice.
	Number int64
	// Keeper is the pipeline that keeps it, on the host of that name.
	Keeper, Host string
	// Kept is when it was kept.
	Kept  time.Time
	State State
	// Changed is when the state changed, Operator who changed it; SinceChange is how long that was ago when the row was read.
	Changed     time.Time
	Operator    string
	SinceChange time.Duration
	// Size is the body's, in bytes.
	Size int64

	// claim names the last replay.
	claim string
}

// fingerprint is of what makes a letter the same: a message that comes again after it was replayed is put aside at another time.
func fingerprint(l *handlers.DeadLetter) []byte {
	moment := l.Metadata[transports.HeaderPrefix+"x-death"] // it was the broker that put it aside
	if !l.Time.IsZero() {
		moment = l.Time.UTC().Format(time.RFC3339Nano)
	}
	h := sha256.New()
	for _, part := range [...]string{l.MessageID, l.Pipeline, moment, string(l.Body)} {
		// The length keeps the parts apart.
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}

// plain is text as every database takes it: the columns that are searched have it.
func plain(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\ufffd"), "\x00", "\ufffd")
}

// details is what a row keeps exactly, whatever bytes it has.
type details struct {
	MessageID  exact           `json:"message_id"`
	Exchange   exact           `json:"exchange"`
	RoutingKey exact           `json:"routing_key"`
	Metadata   [][2]exact      `json:"metadata"`
	Headers    json.RawMessage `json:"headers,omitempty"`
}

// exact is a string that survives JSON: one that isn't UTF-8 is a list of its bytes in base64.
type exact string

func (e exact) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(e)) {
		return json.Marshal(string(e))
	}
	return json.Marshal([][]byte{[]byte(e)})
}

func (e *exact) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err == nil {
		*e = exact(text)
		return nil
	}
	var raw [][]byte
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	if len(raw) != 1 {
		return fmt.Errorf("%d strings instead of one", len(raw))
	}
	*e = exact(raw[0])
	return nil
}

func marshal(l *handlers.DeadLetter) ([]byte, error) {
	d := details{MessageID: exact(l.MessageID), Exchange: exact(l.Exchange), RoutingKey: exact(l.RoutingKey), Metadata: [][2]exact{}, Headers: l.Headers}
	for _, key := range slices.Sorted(maps.Keys(l.Metadata)) {
		d.Metadata = append(d.Metadata, [2]exact{exact(key), exact(l.Metadata[key])})
	}
	return json.Marshal(d)
}

// unmarshal fills a letter with what marshal wrote.
func unmarshal(data []byte, l *handlers.DeadLetter) error {
	var d details
	if err := json.Unmarshal(data, &d); err != nil {
		return fmt.Errorf("reading its details: %w", err)
	}
	l.MessageID, l.Exchange, l.RoutingKey, l.Headers = string(d.MessageID), string(d.Exchange), string(d.RoutingKey), d.Headers
	l.Metadata = make(map[string]string, len(d.Metadata))
	for _, pair := range d.Metadata {
		l.Metadata[string(pair[0])] = string(pair[1])
	}
	return nil
}
