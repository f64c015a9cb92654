package sql

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/internal/database"
)

// presence has the statements that set the column online of devices from the state of their hosts.
//
// A device is online if it is connected and its host isn't lost. A host is lost when it stops,
// when a newer generation of it is heard, or when it is silent for too long.
//
// Lock order: every transaction that writes events first writes to the rows of their hosts, sorted
// by name. That locks these rows, even if nothing in them changes. So two transactions about one
// host run one after the other, also if different hosts execute them.
type presence struct {
	// raiseGeneration records the generation in a device's event. updateHost records a host's own
	// event.
	raiseGeneration, updateHost *template
	// markLost marks a host as lost, unless another pipeline has heard it since.
	markLost string
	// markDevicesOffline and markDevicesOnline change the column online of a host's devices, as
	// the row of the host says.
	markDevicesOffline, markDevicesOnline string
	// selectHeard selects the hosts that a pipeline heard last. selectHost selects one host.
	selectHeard, selectHost string
}

func (c *Config) presence(d database.Dialect) *presence {
	cols := c.columns()
	if cols[online] == "" {
		return nil
	}
	q := func(f field) string { return d.Quote(cols[f]) }
	hosts, table := d.Quote(c.hosts()), d.Quote(c.Table)
	// numbered replaces each ? by the placeholder of the dialect.
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
		raiseGeneration: row(greaterFence(generation)),
		updateHost:      row(pairFence(generation, seq)),
		markLost:        numbered("UPDATE " + hosts + " SET online = false, reason = 'node_lost' WHERE name = ? AND generation = ? AND seq = ? AND online"),
		markDevicesOffline: numbered("UPDATE " + table + " AS t SET " + q(online) + " = false" + lost + mine + " AND t." + q(online) + " AND t." + q(generation) +
			" <= (SELECT CASE WHEN h.online THEN h.generation - 1 ELSE h.generation END FROM " + hosts + " AS h WHERE h.name = ?)"),
		markDevicesOnline: numbered("UPDATE " + table + " AS t SET " + q(online) + " = true" + back + mine + " AND NOT t." + q(online) + " AND t." + q(generation) +
			" = (SELECT h.generation FROM " + hosts + " AS h WHERE h.name = ? AND h.online)"),
		selectHeard: numbered("SELECT name, generation, seq FROM " + hosts + " WHERE online AND heard_by = ?"),
		selectHost:  numbered("SELECT generation, seq FROM " + hosts + " WHERE name = ?"),
	}
}

// hostColumns are the columns of the table of hosts, without its key.
var hostColumns = columns{generation: "generation", seq: "seq", online: "online", reason: "reason", heardAt: "heard_at", heardBy: "heard_by"}

// lockHosts returns the statements that begin a transaction. They lock the rows of all hosts in
// its messages. Each host is named once, in the order of names, so that two transactions can't
// deadlock.
func (p *presence) lockHosts(jobs []job, now any, by string) []database.Statement {
	newest := map[string]int64{}
	for _, j := range jobs {
		if j.host != nil {
			newest[j.host.name] = max(newest[j.host.name], j.host.generation)
		}
	}
	all := make([]database.Statement, 0, 3*len(newest)+len(jobs))
	for _, name := range sortedKeys(newest) {
		all = append(all, p.raiseGeneration.bind(values{device: name, generation: newest[name], seq: int64(0), online: true, reason: "heard", heardAt: now, heardBy: by}))
	}
	return all
}

// hostStatement returns the statement for a host's own event.
func (p *presence) hostStatement(h *heard, now any, by string) database.Statement {
	return p.updateHost.bind(values{device: h.name, generation: h.generation, seq: h.seq, online: h.online, reason: h.reason, heardAt: now, heardBy: by})
}

// updateDevices returns the statements that end a transaction. They change the column online of
// the hosts' devices, as the rows of the hosts say.
func (p *presence) updateDevices(jobs []job) []database.Statement {
	names := map[string]int64{}
	for _, j := range jobs {
		if j.host != nil {
			names[j.host.name] = 0
		}
	}
	var all []database.Statement
	for _, name := range sortedKeys(names) {
		all = append(all, p.deviceStatements(name)...)
	}
	return all
}

func (p *presence) deviceStatements(name string) []database.Statement {
	return []database.Statement{{Text: p.markDevicesOffline, Args: []any{name, name}}, {Text: p.markDevicesOnline, Args: []any{name, name}}}
}

func sortedKeys(m map[string]int64) []string {
	return slices.Sorted(maps.Keys(m))
}

// knownHost is a host from which this pipeline has received messages, or did in an earlier
// process.
type knownHost struct {
	generation, seq int64
	// at is when the last message came, by the clock of this process.
	at time.Time
	// ended says that the host has stopped or counts as lost.
	ended bool
}

// noteHosts remembers the hosts in a batch that was committed.
func (h *handler) noteHosts(jobs []job) {
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
			*k = knownHost{generation: j.host.generation, seq: j.host.seq, at: now, ended: j.host.ofHost && !j.host.online}
		case j.host.generation == k.generation:
			k.at = now // an older message also shows that the host isn't silent
		}
	}
}

// loadHosts reads the hosts that this pipeline heard last in an earlier process. Their silence
// counts from now.
func (h *handler) loadHosts(ctx context.Context) error {
	now := time.Now()
	return h.db.Query(ctx, database.Statement{Text: h.presence.selectHeard, Args: []any{h.env.Pipeline}}, func(scan func(...any) error) error {
		var name string
		k := knownHost{at: now}
		if err := scan(&name, &k.generation, &k.seq); err != nil {
			return err
		}
		h.known[name] = &k
		return nil
	})
}

// readsWithoutDelay reports whether a message from a host would have been handled by now. This is
// true if the source's consumer is connected, the window isn't full, and no old messages wait.
// Otherwise the silence of a host means nothing.
func (h *handler) readsWithoutDelay() bool {
	if h.env.Source == nil {
		return true
	}
	s := h.env.Source()
	stopped := s.Present == h.sourceTime
	h.sourceTime = s.Present
	return !stopped && !s.Full && s.Oldest < maxSourceDelay
}

// maxSourceDelay bounds the age of the oldest unsettled message. If that message is at least as
// old, the silence of hosts isn't counted.
const maxSourceDelay = 5 * time.Second

// findSilentHosts marks hosts as lost that were silent for too long. The caller has locked h.mu.
func (h *handler) findSilentHosts(ctx context.Context) error {
	now := time.Now()
	if !h.readsWithoutDelay() {
		for _, k := range h.known {
			k.at = now
		}
		return nil
	}
	for name, k := range h.known {
		if k.ended || now.Sub(k.at) < h.Silence {
			continue
		}
		if err := h.markHostLost(ctx, name, k); err != nil {
			return err
		}
	}
	return nil
}

// markHostLost marks a host as lost, unless another pipeline has heard it since.
func (h *handler) markHostLost(ctx context.Context, name string, k *knownHost) error {
	var generation, seq int64
	err := h.db.Query(ctx, database.Statement{Text: h.presence.selectHost, Args: []any{name}}, func(scan func(...any) error) error {
		return scan(&generation, &seq)
	})
	if err != nil {
		return err
	}
	if generation != k.generation || seq != k.seq {
		*k = knownHost{generation: generation, seq: seq, at: time.Now()}
		return nil
	}
	statements := []database.Statement{{Text: h.presence.markLost, Args: []any{name, k.generation, k.seq}}}
	if err := h.db.Apply(ctx, append(statements, h.presence.deviceStatements(name)...)); err != nil {
		return err
	}
	k.ended = true
	h.env.Logger.Warn("a host is silent: its devices count as offline until it is heard", "host", name, "silent", h.Silence)
	return nil
}
