package scenario

import (
	"maps"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// seen is a message, frame, request or reply that came out of the host.
type seen struct {
	payload  []byte
	metadata message.Metadata
	// code and err are set for a reply.
	code int
	err  error
}

// subject is the source of something that came out: a topic, a device, a server or the store of
// dead letters.
type subject struct{ kind, name string }

func (s subject) String() string { return s.kind + s.name }

func topicSubject(ref string) subject   { return subject{"", ref} }
func hookSubject(url string) subject    { return subject{"requests to ", url} }
func deviceSubject(name string) subject { return subject{"device ", name} }

var letterSubject = subject{"the dead letters", ""}

// record has everything that came out and that no step has expected yet.
type record struct {
	changed chan struct{}

	mu   sync.Mutex
	came map[subject][]*seen
}

func newRecord() *record {
	return &record{changed: make(chan struct{}, 1), came: map[subject][]*seen{}}
}

func (r *record) add(s subject, one *seen) {
	r.mu.Lock()
	r.came[s] = append(r.came[s], one)
	r.mu.Unlock()
	r.signal()
}

// message adds a copy of a message.
func (r *record) message(ref string, msg *message.Message) {
	r.add(topicSubject(ref), &seen{payload: slices.Clone(msg.Payload), metadata: maps.Clone(msg.Metadata)})
}

func (r *record) signal() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// left returns what came out of s and wasn't taken yet.
func (r *record) left(s subject) []*seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.came[s])
}

// take removes one thing that came out of s.
func (r *record) take(s subject, one *seen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.came[s] = slices.DeleteFunc(r.came[s], func(o *seen) bool { return o == one })
}
