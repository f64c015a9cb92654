package configs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/plugin"
)

// way is a path of messages from a pipeline to another one.
type way struct {
	from, to *pipeline
	topic    string
	// path is the setting that names the topic.
	path string
	// broker is true if the topic is at a broker.
	broker bool
}

// ways returns the ways that begin at p.
func (c *checker) ways(p *pipeline) []way {
	refs := []plugin.Ref{{Path: plugin.Join(p.path, "to"), To: "topic", Value: string(p.table.To)}}
	if p.handler != nil {
		refs = append(refs, p.handler.References...)
	}
	for _, m := range p.middleware {
		refs = append(refs, m.References...)
	}
	var ways []way
	for _, ref := range refs {
		if ref.To != "topic" || ref.Value == "" {
			continue
		}
		for _, q := range c.file.pipelines {
			if string(q.table.From) == ref.Value && q.source != nil {
				ways = append(ways, way{from: p, to: q, topic: ref.Value, path: ref.Path, broker: q.source.Broker})
			}
		}
	}
	return ways
}

// loops refuses loops of pipelines inside the host. Messages could never leave such a loop, and it
// would block when it is full. A loop through a broker is legal, because other consumers may take
// the messages; loops warns about it.
func (c *checker) loops() {
	inside := c.rounds(false)
	for _, round := range inside {
		c.fail(round[len(round)-1].path, "pipelines form a loop without a broker in between: "+describeLoop(round), "", "")
	}
	if len(inside) > 0 {
		return
	}
	for _, round := range c.rounds(true) {
		at := round[len(round)-1].path
		if slices.ContainsFunc(c.problems, func(p problem) bool { return p.path == at }) {
			continue // the setting is already refused
		}
		c.warn(at, "pipelines form a loop through a broker, in which messages may circulate without end: %s", describeLoop(round))
	}
}

// rounds returns at least one loop if there is any. With brokers it also follows ways through
// brokers.
func (c *checker) rounds(brokers bool) [][]way {
	done := map[*pipeline]bool{}
	var stack []way
	var rounds [][]way
	var visit func(p *pipeline)
	visit = func(p *pipeline) {
		for _, w := range c.ways(p) {
			if w.broker && !brokers {
				continue
			}
			stack = append(stack, w)
			if i := slices.IndexFunc(stack, func(s way) bool { return s.from == w.to }); i >= 0 {
				rounds = append(rounds, slices.Clone(stack[i:]))
			} else if !done[w.to] {
				visit(w.to)
			}
			stack = stack[:len(stack)-1]
		}
		done[p] = true
	}
	for _, p := range c.file.pipelines {
		if !done[p] {
			visit(p)
		}
	}
	return rounds
}

func describeLoop(round []way) string {
	var b strings.Builder
	for _, w := range round {
		fmt.Fprintf(&b, "%s -> (%s) -> ", w.from.name, w.topic)
	}
	return b.String() + round[0].from.name
}
