package chaos

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// evidence is a history and what rules look up in it, found once. Places are indexes into the slices of the history.
type evidence struct {
	*History
	// start and end are the first and the last that is known of the run.
	start, end time.Time
	// lives are the commands', each at its command's place.
	lives []life
	// place is where the command of an id to a device is, first where the first of an id is.
	place map[commandKey]int
	first map[string]int
	// spoken is the place of the command to which a device said a text.
	spoken map[commandKey]int
	// groups are by id, in groupIDs in the order of their commands.
	groups   map[string]*groupLog
	groupIDs []string
	// stood are the faults in which a process stood still.
	stood timeline
	// strays are the places of results for ids that nobody published.
	strays []int
	// devices are sorted by name.
	devices []*deviceLog
	byName  map[string]*deviceLog
	faults  timeline
	// newest is the newest generation of each host: the process that still ran in the end.
	newest map[string]uint64
}

// life is what came of one command: places of lines that its own device read, of all result messages, and of the terminal results
// without their repeats. deadLetters are places of what the broker gave up.
type life struct {
	reads, answers, results, outcomes, deadLetters []int
}

// commandKey is what a command is known by: those of a group share their id. In spoken it is a text in the id's place.
type commandKey struct{ id, device string }

// groupLog is what is known of one group: places of its commands and of what was said of it.
type groupLog struct{ commands, reports []int }

// deviceLog is what is known of one device.
type deviceLog struct {
	name string
	// commands are sorted by their number.
	commands      []int
	reads, events []int
	// sessions are sorted by epoch.
	sessions []*sessionSpan
	byEpoch  map[uint64]*sessionSpan
	cuts     timeline
}

// sessionSpan is one session of a device, as events and results tell of it.
type sessionSpan struct {
	epoch      uint64
	start, end time.Time
	host       string
	generation uint64
	// ended says that an event told of its end; otherwise end is a guess.
	ended  bool
	reason device.Reason
	// broke says that it didn't, or may not have, ended with a clean close.
	broke bool
}

func newEvidence(h *History) *evidence {
	e := &evidence{
		History: h,
		lives:   make([]life, len(h.Commands)),
		place:   make(map[commandKey]int, len(h.Commands)),
		first:   make(map[string]int, len(h.Commands)),
		spoken:  make(map[commandKey]int, len(h.Answers)),
		groups:  map[string]*groupLog{},
		byName:  map[string]*deviceLog{},
		newest:  map[string]uint64{},
	}
	e.span()
	e.sortFaults()
	for i := range h.Commands {
		c := &h.Commands[i]
		if _, taken := e.place[c.key()]; !taken {
			e.place[c.key()] = i
		}
		if _, taken := e.first[c.ID]; !taken {
			e.first[c.ID] = i
		}
		if c.Group != "" {
			g := e.group(c.ID)
			g.commands = append(g.commands, i)
		}
		d := e.device(c.Device)
		d.commands = append(d.commands, i)
	}
	for i := range h.Reads {
		r := &h.Reads[i]
		d := e.device(r.Device)
		d.reads = append(d.reads, i)
		if p, ok := e.own(i); ok {
			e.lives[p].reads = append(e.lives[p].reads, i)
		}
	}
	for i := range h.Answers {
		a := &h.Answers[i]
		if p, ok := e.place[commandKey{a.ID, a.Device}]; ok {
			e.lives[p].answers = append(e.lives[p].answers, i)
			e.spoken[commandKey{a.Text, a.Device}] = p
		}
	}
	for i := range h.Reports {
		g := e.group(h.Reports[i].ID)
		g.reports = append(g.reports, i)
	}
	for i := range h.End.DeadLetters {
		d := &h.End.DeadLetters[i]
		if p, ok := e.place[commandKey{d.ID, d.Device}]; ok {
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

func (c *Command) key() commandKey { return commandKey{c.ID, c.Device} }

// find returns the place of the command to the device, else of the first of its id.
func (e *evidence) find(id, device string) (int, bool) {
	p, ok := e.place[commandKey{id, device}]
	if !ok {
		p, ok = e.first[id]
	}
	return p, ok
}

// own returns the place of the command that is read, if it is one of the device that read it.
func (e *evidence) own(read int) (int, bool) {
	r := &e.Reads[read]
	place, ok := e.place[commandKey{r.ID, r.Device}]
	return place, ok
}

// group returns the log of the group, a new one the first time.
func (e *evidence) group(id string) *groupLog {
	g, ok := e.groups[id]
	if !ok {
		g = &groupLog{}
		e.groups[id], e.groupIDs = g, append(e.groupIDs, id)
	}
	return g
}

// device returns the log of the device, a new one the first time.
func (e *evidence) device(name string) *deviceLog {
	d, ok := e.byName[name]
	if !ok {
		d = &deviceLog{name: name, byEpoch: map[uint64]*sessionSpan{}}
		e.byName[name] = d
	}
	return d
}

// span finds the start and the end of the run.
func (e *evidence) span() {
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
		if f.Stood {
			e.stood.add(f)
		}
		if f.Killed {
			continue // that broke all sessions of its process, and no later ones
		}
		for _, name := range f.Cut {
			e.device(name).cuts.add(f)
		}
	}
}

// outcomeKey tells results apart whose bodies differ. Repeats of one result have the same.
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
		p, ok := e.find(r.ID, r.Device)
		if !ok {
			e.strays = append(e.strays, i)
			continue
		}
		l := &e.lives[p]
		l.results = append(l.results, i)
		if r.Epoch != 0 {
			e.device(r.Device).session(r.Epoch, e.guess(r.Epoch, r.Time))
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
		d := e.device(v.Device)
		d.events = append(d.events, i)
		start := v.ConnectedAt
		switch {
		case !start.IsZero():
		case v.Type == device.Connected:
			start = v.Time
		default:
			start = e.guess(v.Epoch, v.Time)
		}
		s := d.session(v.Epoch, start)
		s.start, s.host, s.generation = start, v.Host, v.Generation
		if v.Type == device.Disconnected && !s.ended {
			s.ended, s.end, s.reason = true, v.Time, v.Reason
		}
	}
}

// guess returns when a session began that only its epoch tells of: epochs are Unix milliseconds if nothing is against it. It was there at
// the time known.
func (e *evidence) guess(epoch uint64, known time.Time) time.Time {
	if t := time.UnixMilli(int64(epoch)); t.After(e.start) && !t.After(known) {
		return t
	}
	return e.start
}

// session returns the session of the epoch, a new one the first time.
func (d *deviceLog) session(epoch uint64, start time.Time) *sessionSpan {
	s, ok := d.byEpoch[epoch]
	if !ok {
		s = &sessionSpan{epoch: epoch, start: start}
		d.byEpoch[epoch] = s
		d.sessions = append(d.sessions, s)
	}
	return s
}

// closeSessions finds how each session ended.
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
		s.broke = s.ended && !clean(s.reason) || d.cuts.any(s.start, s.end, func(Fault) bool { return true })
		if s.broke || s.ended {
			continue
		}
		// No event told of its end, which may be for two reasons: the host was killed, or the event gave way to a newer one in an outage.
		killable := s.generation == 0 || s.generation < e.newest[s.host]
		s.broke = e.faults.any(s.start, s.end, func(f Fault) bool { return !last || f.Killed && killable })
	}
}

// clean says that what was written before a session's end for this reason has been read: both ends closed it in order.
func clean(r device.Reason) bool { return r == device.ClientClosed || r == device.ServerShutdown }

// killed says whether the host may have been killed in that time, or ended without having recorded
// everything.
func (e *evidence) killed(from, to time.Time) bool {
	return e.faults.any(from, to, func(f Fault) bool { return f.Killed }) ||
		slices.ContainsFunc(e.Stops, func(s Stop) bool { return s.Code == exitUnclean && !s.End.Before(from) && !s.Begin.After(to) })
}

// outcome returns the one terminal result of the command at that place, or nil if it has none or several.
func (e *evidence) outcome(place int) *Result {
	if o := e.lives[place].outcomes; len(o) == 1 {
		return &e.Results[o[0]]
	}
	return nil
}
