// Package deadletters stores messages that couldn't be handled, as rows of a SQLite file or of a
// PostgreSQL database. People can list, replay and drop the messages there.
//
// A host adds rows through a [Store], which the handler "store" gets. An [Operator] works on the
// rows, also while hosts and other operators use the store. [Store.Operate] returns one, and
// [Store.Look] returns one that only reads.
//
// Operators share the rows without locks. A row has a state, and a claim: a random text that names
// its last replay. Each change of a row names the state and the claim that its operator has read.
// If another operator changed the row in between, the change finds no row and has no effect.
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

// State is the state of a row.
type State int

// The states of a row.
const (
	// New: no operator has changed the row.
	New State = iota + 1
	// Replaying: an operator replays the message, or was interrupted while replaying it.
	Replaying
	// Replayed: the message was sent again, and the broker has confirmed it.
	Replayed
	// Dropped: an operator decided that the message isn't needed.
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
	// Number identifies the row. No number is used twice.
	Number int64
	// Keeper is the pipeline that stored the row, and Host the name of its host.
	Keeper, Host string
	// Kept is when the row was stored.
	Kept  time.Time
	State State
	// Changed is when the state changed last, and Operator who changed it. SinceChange is the time
	// from that change until the row was read.
	Changed     time.Time
	Operator    string
	SinceChange time.Duration
	// Size is the length of the body in bytes.
	Size int64

	// claim names the last replay.
	claim string
}

// fingerprint returns a hash that identifies a letter, so that a redelivered one isn't stored
// twice. It includes the time of the failure: a message that fails again after a replay is another
// letter.
func fingerprint(l *handlers.DeadLetter) []byte {
	// The broker has set x-death if it dead-lettered the message itself.
	moment := l.Metadata[transports.HeaderPrefix+"x-death"]
	if !l.Time.IsZero() {
		moment = l.Time.UTC().Format(time.RFC3339Nano)
	}
	h := sha256.New()
	for _, part := range [...]string{l.MessageID, l.Pipeline, moment, string(l.Body)} {
		// With its length in front, no part can be confused with the end of the part before.
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}

// cleanText replaces bytes that some database refuses. It is for the columns that can be searched.
func cleanText(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\ufffd"), "\x00", "\ufffd")
}

// details has the parts of a letter that a row stores exactly, byte for byte.
type details struct {
	MessageID  exact           `json:"message_id"`
	Exchange   exact           `json:"exchange"`
	RoutingKey exact           `json:"routing_key"`
	Metadata   [][2]exact      `json:"metadata"`
	Headers    json.RawMessage `json:"headers,omitempty"`
}

// exact is a string that JSON doesn't change. If it isn't UTF-8, its JSON is a list with its bytes
// in base64.
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

// marshalDetails returns the details of a letter as JSON.
func marshalDetails(l *handlers.DeadLetter) ([]byte, error) {
	d := details{MessageID: exact(l.MessageID), Exchange: exact(l.Exchange), RoutingKey: exact(l.RoutingKey), Metadata: [][2]exact{}, Headers: l.Headers}
	for _, key := range slices.Sorted(maps.Keys(l.Metadata)) {
		d.Metadata = append(d.Metadata, [2]exact{exact(key), exact(l.Metadata[key])})
	}
	return json.Marshal(d)
}

// unmarshalDetails sets the fields of a letter that marshalDetails wrote.
func unmarshalDetails(data []byte, l *handlers.DeadLetter) error {
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
