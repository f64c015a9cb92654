package tally

import (
	"container/list"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/pentrough/pentrough/transports/device"
)

// key names a group's command: groups of one name may have several.
type key struct{ id, group string }

// group is what is known of one.
type group struct {
	key
	place *list.Element // in tally.order
	timer *time.Timer
	// since is when it was expanded, or else when its first result came about.
	since time.Time
	// devices is how many it has, 0 as long as that isn't known.
	devices int
	results map[string]device.State
	// ended says that it has its summary; by is the device whose result it was, empty for that of fanout's message.
	ended   bool
	by      string
	summary device.GroupReport
}

// complete reports whether every device's command has ended.
func (g *group) complete() bool { return g.devices > 0 && len(g.results) >= g.devices }

// cost is what the group counts for in max_results.
func (g *group) cost() int { return 1 + len(g.results) }

// end makes the group's summary.
func (g *group) end(state device.GroupState, detail string, t *tally) {
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

// missing says why a group that isn't complete may not be.
func (g *group) missing(why string, began time.Time) string {
	if g.devices == 0 {
		why += "; the message that says how many devices the group has didn't come"
	}
	if g.since.Before(began) {
		why += fmt.Sprintf("; counted since %s, and the group is older", began.UTC().Format(time.RFC3339))
	}
	return why
}

// messageID is the same each time.
func (k key) messageID() string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte("summary\x00"+k.id+"\x00"+k.group)).String()
}
