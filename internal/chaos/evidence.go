package chaos

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// evidence is a history with the lookups that rules need. Places are indexes into the slices of
// the history.
type evidence struct {
	*History
	// start and end are the first and the last known time of the run.
	start, end time.Time
	// lives has what is known of each command, at the place of the command.
	lives []life
	// commandByKey has the place of the command with an id for a device. firstWithID has the place
	// of the first command with an id.
	commandByKey map[commandKey]int
	firstWithID  map[string]int
	// commandByAnswer has the place of the command to which a device gave an answer.
	commandByAnswer map[commandKey]int
	// groups are by id. groupIDs has the ids in the order of their commands.
	groups   map[string]*groupLog
	groupIDs []string
	// freezes are the faults in which a process was frozen.
	freezes timeline
	// unknownResults are the places of results for ids that were never published.
	unknownResults []int
	// devices are sorted by name.
	devices []*deviceLog
	byName  map[string]*deviceLog
	faults  timeline
	// newest is the newest generation of each host, which is the process that ran at the end.
	newest map[string]uint64
}

// life is what is known of one command: the places of the lines that its own device read, of its
// answers, of all its result messages, and of its dead letters. outcomes are its terminal results
// without repeats.
type life struct {
	reads, answers, results, outcomes, deadLetters []int
}

// commandKey identifies a command, since the commands of a group share their id. In
// commandByAnswer, id is the text of the answer.
type commandKey struct{ id, device string }

// groupLog is what is known of one group: the places of its commands and of the reports about it.
type groupLog struct{ commands, reports []int }

// deviceLog is what is known of one device.
type deviceLog struct {
	name string
	// commands are sorted by number.
	commands      []int
	reads, events []int
	// sessions are sorted by epoch.
	sessions []*sessionSpan
	byEpoch  map[uint64]*sessionSpan
	cuts     timeline
}

// sessionSpan is one session of a device, as events and results show it.
type sessionSpan struct {
	epoch      uint64
	start, end time.Time
	host       string
	generation uint64
	// ended reports whether an event reported the end. Otherwise end is an estimate.
	ended  bool
	reason device.Reason
	// broke reports whether the session ended, or may have ended, without a clean close.
	broke bool
}

func newEvidence(h *History) *evidence {
	e := &evidence{
		History:         h,
		lives:           make([]life, len(h.Commands)),
		commandByKey:    make(map[commandKey]int, len(h.Commands)),
		firstWithID:     make(map[string]int, len(h.Commands)),
		commandByAnswer: make(map[commandKey]int, len(h.Answers)),
		groups:          map[string]*groupLog{},
		byName:          map[string]*deviceLog{},
		newest:          map[string]uint64{},
	}
	e.findStartAndEnd()
	e.sortFaults()
	for i := range h.Commands {
		c := &h.Commands[i]
		if _, taken := e.commandByKey[c.commandKey()]; !taken {
			e.commandByKey[c.commandKey()] = i
		}
		if _, taken := e.firstWithID[c.ID]; !taken {
			e.firstWithID[c.ID] = i
		}
		if c.Group != "" {
			g := e.groupFor(c.ID)
			g.commands = append(g.commands, i)
		}
		d := e.deviceFor(c.Device)
		d.commands = append(d.commands, i)
	}
	for i := range h.Reads {
		r := &h.Reads[i]
		d := e.deviceFor(r.Device)
		d.reads = append(d.reads, i)
		if p, ok := e.commandOfRead(i); ok {
			e.lives[p].reads = append(e.lives[p].reads, i)
		}
	}
	for i := range h.Answers {
		a := &h.Answers[i]
		if p, ok := e.commandByKey[commandKey{a.ID, a.Device}]; ok {
			e.lives[p].answers = append(e.lives[p].answers, i)
			e.commandByAnswer[commandKey{a.Text, a.Device}] = p
		}
	}
	for i := range h.Reports {
		g := e.groupFor(h.Reports[i].ID)
		g.reports = append(g.reports, i)
	}
	for i := range h.End.DeadLetters {
		d := &h.End.DeadLetters[i]
		if p, ok := e.commandByKey[commandKey{d.ID, d.Device}]; ok {
			e.lives[p].deadLetters = append(e.lives[p].deadLetters, i)
		}
	}
	e.collectResults()
	e.collectEvents()
	e.devices = slices.SortedFunc(maps.Values(e.byName), func(a, b *deviceLog) int { return cmp.Compare(a.name, b.name) })
	for _, d := range e.devices {
		slices.SortStableFunc(d.commands, func(a, b int) int { return cmp.Compare(h.Commands[a].Number, h.Commands[b].Number) })
		e.closeSessions(d)
	}
	return e
}

func (c *Command) commandKey() commandKey { return commandKey{c.ID, c.Device} }

// findCommand returns the place of the command with the id for the device. If there is none, it
// returns the first command with the id.
func (e *evidence) findCommand(id, device string) (int, bool) {
	p, ok := e.commandByKey[commandKey{id, device}]
	if !ok {
		p, ok = e.firstWithID[id]
	}
	return p, ok
}

// commandOfRead returns the place of the command that a read belongs to, if it is for the device
// that read it.
func (e *evidence) commandOfRead(read int) (int, bool) {
	r := &e.Reads[read]
	place, ok := e.commandByKey[commandKey{r.ID, r.Device}]
	return place, ok
}

// groupFor returns the log of the group, and makes it the first time.
func (e *evidence) groupFor(id string) *groupLog {
	g, ok := e.groups[id]
	if !ok {
		g = &groupLog{}
		e.groups[id], e.groupIDs = g, append(e.groupIDs, id)
	}
	return g
}

// deviceFor returns the log of the device, and makes it the first time.
func (e *evidence) deviceFor(name string) *deviceLog {
	d, ok := e.byName[name]
	if !ok {
		d = &deviceLog{name: name, byEpoch: map[uint64]*sessionSpan{}}
		e.byName[name] = d
	}
	return d
}

// findStartAndEnd sets the start and the end of the run.
func (e *evidence) findStartAndEnd() {
	include := func(t time.Time) {
		switch {
		case t.IsZero():
		case e.start.IsZero():
			e.start, e.end = t, t
		case t.Before(e.start):
			e.start = t
		case t.After(e.end):
			e.end = t
		}
	}
	for i := range e.Commands {
		include(e.Commands[i].Sent)
	}
	for i := range e.Reads {
		include(e.Reads[i].Time)
	}
	for i := range e.Results {
		include(e.Results[i].Read)
	}
	for i := range e.Answers {
		include(e.Answers[i].Time)
	}
	for i := range e.Reports {
		include(e.Reports[i].Read)
	}
	for i := range e.Events {
		include(e.Events[i].Read)
	}
	for i := range e.Faults {
		include(e.Faults[i].Begin)
		include(e.Faults[i].End)
	}
	include(e.End.Settled)
}

func (e *evidence) sortFaults() {
	faults := slices.Clone(e.Faults)
	for i := range faults {
		f := &faults[i]
		if f.End.Before(f.Begin) {
			f.End = f.Begin
		}
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return a.Begin.Compare(b.Begin) })
	for _, f := range faults {
		e.faults.add(f)
		if f.Frozen {
			e.freezes.add(f)
		}
		if f.Killed {
			continue // that broke all sessions of its process, and no later ones
		}
		for _, name := range f.Cut {
			e.deviceFor(name).cuts.add(f)
		}
	}
}

// outcomeKey distinguishes results with different bodies. Repeats of one result have the same key.
type outcomeKey struct {
	place   int
	device  string
	state   device.State
	epoch   uint64
	attempt int
	time    int64
}

type bodyKey struct {
	place int
	body  string
}

func (e *evidence) collectResults() {
	keys := make(map[outcomeKey]struct{}, len(e.Results))
	bodies := make(map[bodyKey]struct{}, len(e.Results))
	for i := range e.Results {
		r := &e.Results[i]
		p, ok := e.findCommand(r.ID, r.Device)
		if !ok {
			e.unknownResults = append(e.unknownResults, i)
			continue
		}
		l := &e.lives[p]
		l.results = append(l.results, i)
		if r.Epoch != 0 {
			e.deviceFor(r.Device).sessionFor(r.Epoch, e.estimateStart(r.Epoch, r.Time))
		}
		if !r.State.Terminal() {
			continue
		}
		key := outcomeKey{p, r.Device, r.State, r.Epoch, r.Attempt, r.Time.UnixNano()}
		body := bodyKey{p, r.Body}
		_, known := keys[key]
		if r.Body != "" {
			if _, same := bodies[body]; same {
				known = true
			}
			bodies[body] = struct{}{}
		}
		keys[key] = struct{}{}
		if !known {
			l.outcomes = append(l.outcomes, i)
		}
	}
}

func (e *evidence) collectEvents() {
	for i := range e.Events {
		v := &e.Events[i]
		e.newest[v.Host] = max(e.newest[v.Host], v.Generation)
		if v.Device == "" {
			continue
		}
		d := e.deviceFor(v.Device)
		d.events = append(d.events, i)
		start := v.ConnectedAt
		switch {
		case !start.IsZero():
		case v.Type == device.Connected:
			start = v.Time
		default:
			start = e.estimateStart(v.Epoch, v.Time)
		}
		s := d.sessionFor(v.Epoch, start)
		s.start, s.host, s.generation = start, v.Host, v.Generation
		if v.Type == device.Disconnected && !s.ended {
			s.ended, s.end, s.reason = true, v.Time, v.Reason
		}
	}
}

// estimateStart returns when a session began, if only its epoch is known. The session existed at
// the time known. An epoch is a time in Unix milliseconds. If that time isn't between the run's
// start and known, estimateStart returns the run's start.
func (e *evidence) estimateStart(epoch uint64, known time.Time) time.Time {
	if t := time.UnixMilli(int64(epoch)); t.After(e.start) && !t.After(known) {
		return t
	}
	return e.start
}

// sessionFor returns the session of the epoch, and makes it the first time.
func (d *deviceLog) sessionFor(epoch uint64, start time.Time) *sessionSpan {
	s, ok := d.byEpoch[epoch]
	if !ok {
		s = &sessionSpan{epoch: epoch, start: start}
		d.byEpoch[epoch] = s
		d.sessions = append(d.sessions, s)
	}
	return s
}

// closeSessions finds out how each session ended.
func (e *evidence) closeSessions(d *deviceLog) {
	slices.SortFunc(d.sessions, func(a, b *sessionSpan) int { return cmp.Compare(a.epoch, b.epoch) })
	for i, s := range d.sessions {
		last := i+1 == len(d.sessions)
		switch {
		case s.ended:
		case last:
			s.end = e.end
		default:
			s.end = d.sessions[i+1].start
		}
		s.broke = s.ended && !closedInOrder(s.reason) || d.cuts.anyBetween(s.start, s.end, func(Fault) bool { return true })
		if s.broke || s.ended {
			continue
		}
		// No event reported the end of this session. Either the host was killed, or a newer event
		// replaced the report in an outage.
		killable := s.generation == 0 || s.generation < e.newest[s.host]
		s.broke = e.faults.anyBetween(s.start, s.end, func(f Fault) bool { return !last || f.Killed && killable })
	}
}

// closedInOrder reports whether both ends closed a session in order. Then the device has read
// everything that was written before the end.
func closedInOrder(r device.Reason) bool {
	return r == device.ClientClosed || r == device.ServerShutdown
}

// wasKilled reports whether, in that time, the host may have been killed or have ended without
// recording everything.
func (e *evidence) wasKilled(from, to time.Time) bool {
	return e.faults.anyBetween(from, to, func(f Fault) bool { return f.Killed }) ||
		slices.ContainsFunc(e.Stops, func(s Stop) bool { return s.Code == exitUnclean && !s.End.Before(from) && !s.Begin.After(to) })
}

// onlyOutcome returns the terminal result of the command at that place, or nil if it has none or
// several.
func (e *evidence) onlyOutcome(place int) *Result {
	if o := e.lives[place].outcomes; len(o) == 1 {
		return &e.Results[o[0]]
	}
	return nil
}
