// Package tally is the handler that adds up the results of a group's commands.
package tally

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

type tally struct {
	Config
	env handlers.Env
	out message.Publisher
	// began is since when results are counted.
	began time.Time
	life  context.Context
	end   context.CancelFunc
	// running counts the timers that are set, and the summaries that they publish.
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	groups map[key]*group
	order  list.List // of *group, the oldest first
	cost   int
}

var (
	_ handlers.Describer = (*tally)(nil)
	_ io.Closer          = (*tally)(nil)
)

// said is what a message says of a group.
type said struct {
	ID      string    `json:"id"`
	Group   string    `json:"group"`
	Device  string    `json:"device"`
	State   string    `json:"state"`
	Devices int       `json:"devices"`
	Time    time.Time `json:"time"`
}

func read(msg *message.Message) (said, error) {
	var s said
	body, err := transports.Body(msg)
	if err == nil {
		err = jsontext.Unmarshal(body, &s)
	}
	if err != nil {
		return said{}, fmt.Errorf("reading a result: %w", err)
	}
	if s.State == "" {
		return said{}, errors.New("reading a result: it has no state")
	}
	return s, nil
}

// Describe says of which group a message is: those of one are counted one after the other.
func (t *tally) Describe(msg *message.Message) (handlers.Description, error) {
	s, err := read(msg)
	if err != nil {
		return handlers.Description{}, err
	}
	return handlers.Description{Key: s.ID, ID: msg.Metadata[transports.MessageID], Value: s}, nil
}

// Handle counts a result. It returns the summary with the one that completes its group.
func (t *tally) Handle(msg *message.Message) ([]*message.Message, error) {
	s, ok := handlers.Described(msg.Context()).Value.(said)
	if !ok {
		var err error
		if s, err = read(msg); err != nil {
			return nil, handlers.Permanent(err)
		}
	}
	expanded := s.Device == "" && s.State == string(device.GroupExpanded)
	if s.Group == "" || !expanded && (s.Device == "" || !device.State(s.State).Terminal()) {
		return nil, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.New("counting a result: the host stops")
	}
	g := t.groups[key{s.ID, s.Group}]
	switch {
	case g != nil && g.summary.State == device.GroupFinished && s.Device == g.by:
		return t.say(g), nil // the summary may not have got through
	case g != nil && g.ended:
		return nil, nil
	case g == nil:
		g = t.add(key{s.ID, s.Group}, s.Time)
	}
	if expanded {
		g.devices, g.since = max(s.Devices, 1), s.Time
	} else if _, again := g.results[s.Device]; !again {
		g.results[s.Device] = device.State(s.State)
		t.cost++
	}
	if g.complete() {
		g.by = s.Device
		t.close(g, device.GroupFinished, "")
		return t.say(g), nil
	}
	t.bound()
	return nil, nil
}

// add begins to count a group.
func (t *tally) add(k key, since time.Time) *group {
	g := &group{key: k, since: since, results: map[string]device.State{}}
	g.place = t.order.PushBack(g)
	t.groups[k] = g
	t.cost += g.cost()
	t.running.Add(1) // for the timer
	g.timer = time.AfterFunc(t.Timeout, func() {
		defer t.running.Done()
		t.expire(g)
	})
	return g
}

// close ends a group. That it had its summary is remembered until its timer fires.
func (t *tally) close(g *group, state device.GroupState, detail string) {
	t.cost -= g.cost()
	g.end(state, detail, t)
	t.cost += g.cost()
}

// say makes the message of a group's summary.
func (t *tally) say(g *group) []*message.Message {
	out := g.summary.Message(g.messageID())
	handlers.SetDestination(out, t.To)
	return []*message.Message{out}
}

// expire ends a group whose time is over, and forgets one that has ended before.
func (t *tally) expire(g *group) {
	t.mu.Lock()
	switch {
	case t.closed || t.groups[g.key] != g:
	case g.ended:
		t.forget(g)
	default:
		t.close(g, device.GroupUnfinished, g.missing("not all have ended within "+t.Timeout.String(), t.began))
		t.running.Add(1)
		g.timer.Reset(t.Timeout)
		t.mu.Unlock()
		t.publish(g)
		return
	}
	t.mu.Unlock()
}

// bound ends the oldest groups while more is remembered than may be.
func (t *tally) bound() {
	for t.cost > t.MaxResults {
		g := t.oldest()
		if g.ended { // all have
			t.forget(g)
			t.stop(g)
			continue
		}
		t.close(g, device.GroupUnfinished, g.missing(fmt.Sprintf("no more than %d results are remembered (max_results)", t.MaxResults), t.began))
		t.running.Go(func() { t.publish(g) })
	}
}

// oldest returns the oldest group that is open, else the oldest of all.
func (t *tally) oldest() *group {
	for at := t.order.Front(); at != nil; at = at.Next() {
		if g := at.Value.(*group); !g.ended {
			return g
		}
	}
	return t.order.Front().Value.(*group)
}

// forget forgets a group.
func (t *tally) forget(g *group) {
	delete(t.groups, g.key)
	t.order.Remove(g.place)
	t.cost -= g.cost()
}

// stop stops a group's timer, unless that has fired already.
func (t *tally) stop(g *group) {
	if g.timer.Stop() {
		t.running.Done()
	}
}

// publish publishes a summary that no message owns.
func (t *tally) publish(g *group) {
	out := g.summary.Message(g.messageID())
	out.SetContext(t.life)
	if err := t.out.Publish("", out); err != nil {
		t.env.Logger.Error("publishing the summary of a group; it is lost", "id", g.id, "group", g.group, "err", err)
	}
}

func (t *tally) openGroups() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, g := range t.groups {
		if !g.ended {
			n++
		}
	}
	return float64(n)
}

// Close forgets all groups.
func (t *tally) Close() error {
	t.mu.Lock()
	t.closed = true
	open := 0
	for _, g := range t.groups {
		if !g.ended {
			open++
		}
		t.stop(g)
	}
	t.mu.Unlock()
	t.end()
	t.running.Wait()
	if open > 0 {
		t.env.Logger.Warn("groups are open whose count is forgotten", "groups", open)
	}
	return nil
}
