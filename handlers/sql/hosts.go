package sql

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/internal/database"
)

// presence is what hosts mean for their devices, in SQL. Every transaction that writes events changes the rows of their hosts first, even if only by
// looking at them, and that locks them: two that tell of one host are made one after the other, whoever makes them.
type presence struct {
	// newer takes a greater generation into account that only a device's event tells of; told what a host says of itself.
	newer, told *template
	// silent takes a host for lost, unless it was heard by somebody else.
	silent string
	// lose and restore make a host's devices what the row of the host says.
	lose, restore string
	load, look    string
}

func (c *Config) presence(d database.Dialect) *presence {
	cols := c.columns()
	if cols[online] == "" {
		return nil
	}
	q := func(f field) string { return d.Quote(cols[f]) }
	hosts, table := d.Quote(c.hosts()), d.Quote(c.Table)
	// Every ? stands for a parameter in turn.
	numbered := func(text string) string {
		if !d.Numbered {
			return text
		}
		var b strings.Builder
		n := 0
		for _, r := range text {
			if r != '?' {
				b.WriteRune(r)
				continue
			}
			n++
			b.WriteString(d.Parameter(n))
		}
		return b.String()
	}
	lost, back := "", ""
	if cols[reason] != "" {
		lost, back = ", "+q(reason)+" = 'node_lost'", ", "+q(reason)+" = ''"
	}
	row := func(by fence) *template {
		return (&change{dialect: d, table: c.hosts(), key: "name", columns: hostColumns, sets: hostColumns.sorted(), fence: by}).upsert()
	}
	mine := " WHERE t." + q(host) + " = ? AND t." + q(connected)
	return &presence{
		newer:  row(greater(generation)),
		told:   row(pair(generation, seq)),
		silent: numbered("UPDATE " + hosts + " SET online = false, reason = 'node_lost' WHERE name = ? AND generation = ? AND seq = ? AND online"),
		lose: numbered("UPDATE " + table + " AS t SET " + q(online) + " = false" + lost + mine + " AND t." + q(online) + " AND t." + q(generation) +
			" <= (SELECT CASE WHEN h.online THEN h.generation - 1 ELSE h.generation END FROM " + hosts + " AS h WHERE h.name = ?)"),
		restore: numbered("UPDATE " + table + " AS t SET " + q(online) + " = true" + back + mine + " AND NOT t." + q(online) + " AND t." + q(generation) +
			" = (SELECT h.generation FROM " + hosts + " AS h WHERE h.name = ? AND h.online)"),
		load: numbered("SELECT name, generation, seq FROM " + hosts + " WHERE online AND heard_by = ?"),
		look: numbered("SELECT generation, seq FROM " + hosts + " WHERE name = ?"),
	}
}

// hostColumns are those of the table of hosts, beside its key.
var hostColumns = columns{generation: "generation", seq: "seq", online: "online", reason: "reason", heardAt: "heard_at", heardBy: "heard_by"}

// before are the statements that open a transaction with what its messages tell of hosts, each named once and in order, so that two transactions
// don't wait for each other.
func (p *presence) before(jobs []job, now any, by string) []database.Statement {
	newest := map[string]int64{}
	for _, j := range jobs {
		if j.host != nil {
			newest[j.host.name] = max(newest[j.host.name], j.host.generation)
		}
	}
	all := make([]database.Statement, 0, 3*len(newest)+len(jobs))
	for _, name := range sortedKeys(newest) {
		all = append(all, p.newer.of(values{device: name, generation: newest[name], seq: int64(0), online: true, reason: "heard", heardAt: now, heardBy: by}))
	}
	return all
}

// tell is the statement of a host's own event.
func (p *presence) tell(h *heard, now any, by string) database.Statement {
	return p.told.of(values{device: h.name, generation: h.generation, seq: h.seq, online: h.online, reason: h.reason, heardAt: now, heardBy: by})
}

// after are the statements that end a transaction: they make the devices of the hosts what these are now.
func (p *presence) after(jobs []job) []database.Statement {
	names := map[string]int64{}
	for _, j := range jobs {
		if j.host != nil {
			names[j.host.name] = 0
		}
	}
	var all []database.Statement
	for _, name := range sortedKeys(names) {
		all = append(all, p.settle(name)...)
	}
	return all
}

func (p *presence) settle(name string) []database.Statement {
	return []database.Statement{{Text: p.lose, Args: []any{name, name}}, {Text: p.restore, Args: []any{name, name}}}
}

func sortedKeys(m map[string]int64) []string {
	return slices.Sorted(maps.Keys(m))
}

// knownHost is a host that this pipeline heard last, as far as it knows.
type knownHost struct {
	generation, seq int64
	// at is when, by the clock of the process.
	at time.Time
	// over says that its end is known.
	over bool
}

// listen remembers what a batch told of hosts, when it is in the database.
func (h *handler) listen(jobs []job) {
	now := time.Now()
	for _, j := range jobs {
		if j.host == nil {
			continue
		}
		k := h.known[j.host.name]
		if k == nil {
			k = &knownHost{}
			h.known[j.host.name] = k
		}
		switch {
		case j.host.generation > k.generation || j.host.generation == k.generation && j.host.seq > k.seq:
			*k = knownHost{generation: j.host.generation, seq: j.host.seq, at: now, over: j.host.ofHost && !j.host.online}
		case j.host.generation == k.generation:
			k.at = now // late, but it came
		}
	}
}

// load takes up the hosts that the pipeline heard last, in an earlier process. Their clock begins now.
func (h *handler) load(ctx context.Context) error {
	now := time.Now()
	return h.db.Query(ctx, database.Statement{Text: h.presence.load, Args: []any{h.env.Pipeline}}, func(scan func(...any) error) error {
		var name string
		k := knownHost{at: now}
		if err := scan(&name, &k.generation, &k.seq); err != nil {
			return err
		}
		h.known[name] = &k
		return nil
	})
}

// attended reports whether a host that was silent would have been heard: the pipeline has a consumer at its source, and nothing waits there or here.
func (h *handler) attended() bool {
	if h.env.Source == nil {
		return true
	}
	s := h.env.Source()
	stood := s.Present == h.present
	h.present = s.Present
	return !stood && !s.Full && s.Oldest < patience
}

// patience is how old a message may be that isn't handled yet while a host still counts as silent.
const patience = 5 * time.Second

// watch takes hosts for lost that were silent for too long. The lock is held.
func (h *handler) watch(ctx context.Context) error {
	now := time.Now()
	if !h.attended() {
		for _, k := range h.known {
			k.at = now
		}
		return nil
	}
	for name, k := range h.known {
		if k.over || now.Sub(k.at) < h.Silence {
			continue
		}
		if err := h.lost(ctx, name, k); err != nil {
			return err
		}
	}
	return nil
}

// lost takes a host for lost, unless somebody else heard it meanwhile.
func (h *handler) lost(ctx context.Context, name string, k *knownHost) error {
	var generation, seq int64
	err := h.db.Query(ctx, database.Statement{Text: h.presence.look, Args: []any{name}}, func(scan func(...any) error) error {
		return scan(&generation, &seq)
	})
	if err != nil {
		return err
	}
	if generation != k.generation || seq != k.seq {
		*k = knownHost{generation: generation, seq: seq, at: time.Now()}
		return nil
	}
	statements := []database.Statement{{Text: h.presence.silent, Args: []any{name, k.generation, k.seq}}}
	if err := h.db.Apply(ctx, append(statements, h.presence.settle(name)...)); err != nil {
		return err
	}
	k.over = true
	h.env.Logger.Warn("a host is silent: its devices count as offline until it is heard", "host", name, "silent", h.Silence)
	return nil
}
