package configs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/plugin"
)

// way is one way of messages from a pipeline to another inside the host.
type way struct {
	from, to *pipeline
	topic    string
	// path is the setting that sends messages this way.
	path string
}

// ways are the ways that begin at p. Through a broker a message is out of the host's hands, so those don't count.
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
			if string(q.table.From) == ref.Value && q.source != nil && !q.source.Broker {
				ways = append(ways, way{from: p, to: q, topic: ref.Value, path: ref.Path})
			}
		}
	}
	return ways
}

// loops refuses that messages go round inside the host: nothing would ever take them off the wheel, and a full one turns no more.
func (c *checker) loops() {
	done := map[*pipeline]bool{}
	var stack []way
	var visit func(p *pipeline)
	visit = func(p *pipeline) {
		for _, w := range c.ways(p) {
			stack = append(stack, w)
			if i := slices.IndexFunc(stack, func(s way) bool { return s.from == w.to }); i >= 0 {
				c.loop(stack[i:])
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
}

func (c *checker) loop(round []way) {
	var b strings.Builder
	for _, w := range round {
		fmt.Fprintf(&b, "%s -> (%s) -> ", w.from.name, w.topic)
	}
	b.WriteString(round[0].from.name)
	c.fail(round[len(round)-1].path, "pipelines form a loop without a broker between: "+b.String(), "", "")
}
