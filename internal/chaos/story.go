package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// maxSteps is the longest story. Steps in the middle of a longer one are left out.
const maxSteps = 40

// step is one thing that happened.
type step struct {
	at   time.Time
	text string
}

// storyOf returns the finding's own story if it has one. Otherwise it returns the story of its
// commands.
func (e *evidence) storyOf(f finding) []string {
	if f.story != nil {
		return f.story()
	}
	ids := f.with
	if f.id != "" {
		ids = append([]string{f.id}, ids...)
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	return e.commandStory(slices.Compact(ids), f.device)
}

// sinceStart formats a time as seconds since the run's start.
func (e *evidence) sinceStart(t time.Time) string {
	return fmt.Sprintf("%+.3fs", t.Sub(e.start).Seconds())
}

// commandStory returns the steps of the commands, of the sessions that their results name, and of
// the faults in that time. Of a group's commands it takes the one for the device.
func (e *evidence) commandStory(ids []string, name string) []string {
	var steps []step
	var from, to time.Time
	var devices []string
	for _, id := range ids {
		if place, ok := e.findCommand(id, name); ok {
			devices = append(devices, e.Commands[place].Device)
		}
		label := ""
		if len(ids) > 1 {
			label = id + " "
		}
		own, open := e.commandSteps(id, name)
		for _, s := range own {
			steps = append(steps, step{s.at, label + s.text})
			if from.IsZero() || s.at.Before(from) {
				from = s.at
			}
			if s.at.After(to) {
				to = s.at
			}
		}
		if open {
			to = e.end
		}
	}
	steps = append(steps, e.sessionSteps(ids, name)...)
	for _, f := range e.faults.faults {
		if !f.Begin.After(to) && !f.End.Before(from) {
			steps = append(steps, step{f.Begin, e.faultStep(f, devices)})
		}
	}
	return e.writeSteps(steps)
}

// writeSteps sorts the steps by time and formats them.
func (e *evidence) writeSteps(steps []step) []string {
	slices.SortStableFunc(steps, func(a, b step) int { return a.at.Compare(b.at) })
	left := 0
	if len(steps) > maxSteps {
		left = len(steps) - maxSteps
		steps = slices.Delete(steps, maxSteps/2, maxSteps/2+left)
	}
	var story []string
	for i, s := range steps {
		if left > 0 && i == maxSteps/2 {
			story = append(story, fmt.Sprintf("... %d steps left out", left))
		}
		story = append(story, e.sinceStart(s.at)+" "+s.text)
	}
	return story
}

// commandSteps returns the steps of one command. open reports whether the command has no terminal
// result.
func (e *evidence) commandSteps(id, name string) (steps []step, open bool) {
	place, published := e.findCommand(id, name)
	var reads, results []int
	if published {
		steps = append(steps, step{e.Commands[place].Sent, e.publishStep(&e.Commands[place])})
		results = e.lives[place].results
		for _, i := range e.lives[place].deadLetters {
			d := &e.End.DeadLetters[i]
			steps = append(steps, step{d.Read, "given up by the broker: " + d.Reason})
		}
		for _, i := range e.lives[place].answers {
			a := &e.Answers[i]
			steps = append(steps, step{a.Time, fmt.Sprintf("answered by %s on its connection %d: %s", a.Device, a.Connection, a.Text)})
		}
	} else {
		for _, i := range e.unknownResults {
			if e.Results[i].ID == id {
				results = append(results, i)
			}
		}
	}
	// Reads by other devices belong to the story, unless that device has a command of this id
	// itself.
	for i := range e.Reads {
		if e.Reads[i].ID != id {
			continue
		}
		if own, ok := e.commandOfRead(i); !ok || own == place {
			reads = append(reads, i)
		}
	}
	for _, i := range reads {
		r := &e.Reads[i]
		steps = append(steps, step{r.Time, fmt.Sprintf("read by %s on its connection %d", r.Device, r.Connection)})
	}
	told := map[string]bool{}
	for _, i := range results {
		r := &e.Results[i]
		text := e.resultStep(r)
		if told[text] {
			steps = append(steps, step{r.Read, fmt.Sprintf("the same result again: %s", r.State)})
			continue
		}
		told[text] = true
		steps = append(steps, step{r.Read, text})
	}
	return steps, published && len(e.lives[place].outcomes) == 0
}

func (e *evidence) publishStep(c *Command) string {
	var text strings.Builder
	fmt.Fprintf(&text, "published to %s as its number %d", c.Device, c.Number)
	if c.Group != "" {
		fmt.Fprintf(&text, " with all of group %s", c.Group)
	}
	if c.Mode != "" {
		fmt.Fprintf(&text, ", %s", c.Mode)
	}
	if c.Malformed {
		text.WriteString(", malformed")
	}
	if c.WantsAnswer {
		text.WriteString(", a request")
	}
	if c.TTL > 0 {
		fmt.Fprintf(&text, ", to be written before %s", e.sinceStart(c.Sent.Add(c.TTL)))
	}
	if c.Expiration > 0 {
		fmt.Fprintf(&text, ", at the broker until %s", e.sinceStart(c.Sent.Add(c.Expiration)))
	}
	if c.Publishes > 1 {
		fmt.Fprintf(&text, ", %d times", c.Publishes)
	}
	if c.Confirmed {
		text.WriteString(": confirmed")
	} else {
		text.WriteString(": undecided")
	}
	return text.String()
}

func (e *evidence) resultStep(r *Result) string {
	var text strings.Builder
	fmt.Fprintf(&text, "result %s from %s: attempt %d", r.State, r.Host, r.Attempt)
	if r.Epoch != 0 {
		fmt.Fprintf(&text, ", epoch %d", r.Epoch)
	}
	fmt.Fprintf(&text, ", decided at %s", e.sinceStart(r.Time))
	if r.Detail != "" {
		fmt.Fprintf(&text, " (%s)", r.Detail)
	}
	if r.State == device.StateAnswered {
		fmt.Fprintf(&text, ": %s", r.Reply)
	}
	return text.String()
}

// faultStep describes a fault, and says whether it cut the connection of one of the devices.
func (e *evidence) faultStep(f Fault, devices []string) string {
	text := "fault " + f.Name
	if f.End.After(f.Begin) {
		text += " until " + e.sinceStart(f.End)
	}
	if f.Killed {
		text += fmt.Sprintf(", which killed the host with at most %d commands in flight", f.InFlight)
	}
	if len(f.Cut) > 0 {
		text += fmt.Sprintf(", connections cut: %d", len(f.Cut))
		if i := slices.IndexFunc(devices, func(name string) bool { return slices.Contains(f.Cut, name) }); i >= 0 {
			text += ", one of them of " + devices[i]
		}
	}
	return text
}

// sessionSteps returns the begin and the end of each session that the commands' results name.
func (e *evidence) sessionSteps(ids []string, name string) []step {
	type session struct {
		device string
		epoch  uint64
	}
	told := map[session]bool{}
	var steps []step
	for _, id := range ids {
		place, ok := e.findCommand(id, name)
		if !ok {
			continue
		}
		for _, i := range e.lives[place].outcomes {
			r := &e.Results[i]
			d := e.byName[r.Device]
			if d == nil || r.Epoch == 0 || told[session{r.Device, r.Epoch}] {
				continue
			}
			told[session{r.Device, r.Epoch}] = true
			for _, j := range d.events {
				if v := &e.Events[j]; v.Epoch == r.Epoch {
					steps = append(steps, step{v.Time, eventStep(v)})
				}
			}
		}
	}
	return steps
}

func eventStep(v *Event) string {
	text := fmt.Sprintf("%s %s", v.Device, v.Type)
	if v.Type == device.HostEvent {
		text = "host " + v.Host
	}
	if v.Reason != "" {
		text += fmt.Sprintf(" (%s)", v.Reason)
	}
	if v.Type == device.HostEvent {
		return fmt.Sprintf("%s, generation %d, seq %d", text, v.Generation, v.Seq)
	}
	return fmt.Sprintf("%s, epoch %d, seq %d", text, v.Epoch, v.Seq)
}

// presenceStory returns the events of a device in the order in which they were read, and the
// starts and the last event of its hosts.
func (e *evidence) presenceStory(name string) []string {
	d, p := e.byName[name], NewPresence()
	hosts := map[string]bool{}
	if d != nil {
		for _, i := range d.events {
			hosts[e.Events[i].Host] = true
		}
	}
	last := map[string]int{}
	for i := range e.Events {
		if v := &e.Events[i]; v.Type == device.HostEvent {
			last[v.Host] = i
		}
	}
	var steps []step
	for i := range e.Events {
		v := &e.Events[i]
		if v.Device != name && (v.Type != device.HostEvent || !hosts[v.Host]) {
			continue
		}
		said := ": applied"
		switch {
		case v.Read.After(e.End.Settled):
			said = ": read too late"
		case !p.Apply(v.Event, v.Read):
			said = ": ignored, a newer one is known"
		}
		if v.Type == device.HostEvent && v.Reason == device.HostHeartbeat && i != last[v.Host] {
			continue
		}
		steps = append(steps, step{v.Read, eventStep(v) + said})
	}
	for _, f := range e.faults.faults {
		steps = append(steps, step{f.Begin, e.faultStep(f, []string{name})})
	}
	return e.writeSteps(append(steps, step{e.End.Settled, "presence was compared"}))
}
