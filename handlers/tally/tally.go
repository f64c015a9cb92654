// Package tally is the handler that adds up the results of a group's commands.
//
// A group is open from its first message until its summary is made. Then it is ended, and is
// remembered until its timer fires, so that late and repeated messages don't open it again. The
// mutex of tally guards all groups.
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
	// began is when the handler started to count.
	began time.Time
	life  context.Context
	end   context.CancelFunc
	// running counts the timers that are set, and the summaries that are being published.
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

// report has the fields of a result or of fanout's message.
type report struct {
	ID      string    `json:"id"`
	Group   string    `json:"group"`
	Device  string    `json:"device"`
	State   string    `json:"state"`
	Devices int       `json:"devices"`
	Time    time.Time `json:"time"`
}

// parseReport parses a result, or the message of fanout.
func parseReport(msg *message.Message) (report, error) {
	var s report
	body, err := transports.Body(msg)
	if err == nil {
		err = jsontext.Unmarshal(body, &s)
	}
	if err != nil {
		return report{}, fmt.Errorf("reading a result: %w", err)
	}
	if s.State == "" {
		return report{}, errors.New("reading a result: it has no state")
	}
	return s, nil
}

// Describe returns the group's id as the key: messages of one group are counted one after the
// other.
func (t *tally) Describe(msg *message.Message) (handlers.Description, error) {
	s, err := parseReport(msg)
	if err != nil {
		return handlers.Description{}, err
	}
	return handlers.Description{Key: s.ID, ID: msg.Metadata[transports.MessageID], Value: s}, nil
}

// Handle counts a result. If the group is complete with it, Handle returns the summary.
func (t *tally) Handle(msg *message.Message) ([]*message.Message, error) {
	s, ok := handlers.Described(msg.Context()).Value.(report)
	if !ok {
		var err error
		if s, err = parseReport(msg); err != nil {
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
		return nil, errors.New("counting a result: the host is stopping")
	}
	g := t.groups[key{s.ID, s.Group}]
	switch {
	case g != nil && g.summary.State == device.GroupFinished && s.Device == g.by:
		// The message is redelivered, so the summary may not have been confirmed.
		return t.summaryMessage(g), nil
	case g != nil && g.ended:
		return nil, nil
	case g == nil:
		g = t.addGroup(key{s.ID, s.Group}, s.Time)
	}
	if expanded {
		g.devices, g.since = max(s.Devices, 1), s.Time
	} else if _, counted := g.results[s.Device]; !counted {
		g.results[s.Device] = device.State(s.State)
		t.cost++
	}
	if g.complete() {
		g.by = s.Device
		t.endGroup(g, device.GroupFinished, "")
		return t.summaryMessage(g), nil
	}
	t.evictOldest()
	return nil, nil
}

// addGroup begins to count a group, and starts its timer.
func (t *tally) addGroup(k key, since time.Time) *group {
	g := &group{key: k, since: since, results: map[string]device.State{}}
	g.place = t.order.PushBack(g)
	t.groups[k] = g
	t.cost += g.cost()
	t.running.Add(1) // for the timer
	g.timer = time.AfterFunc(t.Timeout, func() {
		defer t.running.Done()
		t.endOrForget(g)
	})
	return g
}

// endGroup makes the summary of a group. The group is remembered until its timer fires.
func (t *tally) endGroup(g *group, state device.GroupState, detail string) {
	t.cost -= g.cost()
	g.makeSummary(state, detail, t)
	t.cost += g.cost()
}

// summaryMessage makes the message with a group's summary.
func (t *tally) summaryMessage(g *group) []*message.Message {
	out := g.summary.Message(g.messageID())
	handlers.SetDestination(out, t.To)
	return []*message.Message{out}
}

// endOrForget is called by a group's timer. It ends an open group, and forgets one that has ended.
func (t *tally) endOrForget(g *group) {
	t.mu.Lock()
	switch {
	case t.closed || t.groups[g.key] != g:
	case g.ended:
		t.forget(g)
	default:
		t.endGroup(g, device.GroupUnfinished, g.whyUnfinished("not all have ended within "+t.Timeout.String(), t.began))
		t.running.Add(1)
		g.timer.Reset(t.Timeout)
		t.mu.Unlock()
		t.publish(g)
		return
	}
	t.mu.Unlock()
}

// evictOldest ends or forgets the oldest groups while more than max_results are remembered.
func (t *tally) evictOldest() {
	for t.cost > t.MaxResults {
		g := t.oldest()
		if g.ended { // no group is open
			t.forget(g)
			t.stopTimer(g)
			continue
		}
		t.endGroup(g, device.GroupUnfinished, g.whyUnfinished(fmt.Sprintf("more than %d results (max_results) would be remembered", t.MaxResults), t.began))
		t.running.Go(func() { t.publish(g) })
	}
}

// oldest returns the oldest open group, or else the oldest group.
func (t *tally) oldest() *group {
	for at := t.order.Front(); at != nil; at = at.Next() {
		if g := at.Value.(*group); !g.ended {
			return g
		}
	}
	return t.order.Front().Value.(*group)
}

// forget removes a group.
func (t *tally) forget(g *group) {
	delete(t.groups, g.key)
	t.order.Remove(g.place)
	t.cost -= g.cost()
}

// stopTimer stops a group's timer, unless it has fired.
func (t *tally) stopTimer(g *group) {
	if g.timer.Stop() {
		t.running.Done()
	}
}

// publish publishes a summary that isn't the output of a message.
func (t *tally) publish(g *group) {
	out := g.summary.Message(g.messageID())
	out.SetContext(t.life)
	if err := t.out.Publish("", out); err != nil {
		t.env.Logger.Error("publishing the summary of a group, which is lost", "id", g.id, "group", g.group, "err", err)
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

// Close stops all timers and forgets all groups.
func (t *tally) Close() error {
	t.mu.Lock()
	t.closed = true
	open := 0
	for _, g := range t.groups {
		if !g.ended {
			open++
		}
		t.stopTimer(g)
	}
	t.mu.Unlock()
	t.end()
	t.running.Wait()
	if open > 0 {
		t.env.Logger.Warn("the host stops, and the counts of open groups are lost", "groups", open)
	}
	return nil
}
