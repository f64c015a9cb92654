package tally

import (
	"container/list"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/pentrough/pentrough/transports/device"
)

// key identifies a command for a group. Several commands may be for groups of the same name.
type key struct{ id, group string }

// group is the count of one command for a group.
type group struct {
	key
	place *list.Element // in tally.order
	timer *time.Timer
	// since is the time of fanout's message, or of the first result if that message hasn't come.
	since time.Time
	// devices is the number of devices, or 0 before fanout's message has come.
	devices int
	results map[string]device.State
	// ended says that the summary was made. by is the device whose result completed the group; it
	// is empty if fanout's message did.
	ended   bool
	by      string
	summary device.GroupReport
}

// complete reports whether every device's command has ended.
func (g *group) complete() bool { return g.devices > 0 && len(g.results) >= g.devices }

// cost returns how many results the group counts as for max_results.
func (g *group) cost() int { return 1 + len(g.results) }

// makeSummary makes the group's summary and ends it.
func (g *group) makeSummary(state device.GroupState, detail string, t *tally) {
	states := map[device.State]int{}
	for _, s := range g.results {
		states[s]++
	}
	g.summary = device.GroupReport{
		ID: g.id, Group: g.group, State: state, Detail: detail, Devices: g.devices, States: states,
		Unfinished: max(g.devices-len(g.results), 0), Host: t.env.Host, Time: t.env.Now().UTC(),
	}
	g.ended, g.results = true, nil
}

// whyUnfinished returns the detail of a group that isn't complete. It adds other possible causes
// to why.
func (g *group) whyUnfinished(why string, began time.Time) string {
	if g.devices == 0 {
		why += "; fanout's message with the number of devices didn't come"
	}
	if g.since.Before(began) {
		why += fmt.Sprintf("; results are counted since %s, and the group is older", began.UTC().Format(time.RFC3339))
	}
	return why
}

// messageID returns the id of the summary's message. It is the same each time.
func (k key) messageID() string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte("summary\x00"+k.id+"\x00"+k.group)).String()
}
