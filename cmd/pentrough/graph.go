package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

func newGraph() *cobra.Command {
	var file, format string
	cmd := &cobra.Command{
		Use:   "graph -c FILE",
		Short: "Draw the pipelines of a configuration, for Mermaid or Graphviz",
		Long: `Draw the pipelines of a configuration. The graph has the topics of each transport, the middleware
and the handler of each pipeline, the destinations, the devices and the store. The output is the
same each time.`,
		Example: `  pentrough graph -c gateway.toml
  pentrough graph -c gateway.toml --format dot | dot -Tsvg > gateway.svg`,
		Args: fileByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			draw, ok := drawings[format]
			if !ok {
				return advise(fmt.Errorf("there is no format %q", format), "name one of mermaid, dot")
			}
			c, _, err := load(file, redact.SetOf(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			return draw(redact.NewWriter(cmd.OutOrStdout(), redact.SetOf(cmd.ErrOrStderr())), newGraphOf(c))
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "pentrough.toml", "the configuration")
	cmd.Flags().StringVar(&format, "format", "mermaid", "output format: mermaid or dot")
	return cmd
}

// graph is a configuration as nodes and edges.
type graph struct {
	// transports has the transports that pipelines use.
	transports []*group
	pipelines  []*node
	store      *node // nil if nothing uses it
	edges      []edge

	nodes map[string]*node // topics and devices, by reference
}

// group is a transport with its topics.
type group struct {
	id, label string
	nodes     []*node
}

// node is a topic, a pipeline, a transport's devices, or the store.
type node struct {
	id    string
	shape shape
	// lines is the label.
	lines []string
}

type shape int

const (
	topicShape shape = iota
	pipelineShape
	devicesShape
	storeShape
)

// edge is a path that messages take. A side edge is one that they take only in special cases, such
// as a failure.
type edge struct {
	from, to *node
	label    string
	side     bool
}

// newGraphOf returns the graph of a configuration.
func newGraphOf(c *configs.Config) *graph {
	g := &graph{nodes: map[string]*node{}}
	for _, t := range c.Router.Transports {
		g.addTransport(c.Router, t)
	}
	for _, p := range c.Router.Pipelines {
		g.addPipeline(c, p)
	}
	return g
}

// addTransport adds a transport's topics, and its devices if a handler uses them.
func (g *graph) addTransport(c router.Config, t router.Transport) {
	group := &group{id: fmt.Sprintf("transport%d", len(g.transports)), label: t.Name + " (" + t.Type + ")"}
	add := func(ref, label string, s shape) {
		n := &node{id: fmt.Sprintf("topic%d", len(g.nodes)), shape: s, lines: []string{label}}
		g.nodes[ref] = n
		group.nodes = append(group.nodes, n)
	}
	for _, ref := range topicsInUse(c) {
		if name, topic, err := ref.Split(); err == nil && name == t.Name {
			add(string(ref), topic, topicShape)
		}
	}
	holds := func(p router.Pipeline) bool {
		return slices.ContainsFunc(pipelineReferences(p), func(r reference) bool { return r.to == devicesReference && r.value == t.Name })
	}
	if slices.ContainsFunc(c.Pipelines, holds) {
		add(t.Name, "devices", devicesShape)
	}
	if len(group.nodes) > 0 {
		g.transports = append(g.transports, group)
	}
}

// addPipeline adds a pipeline and its edges.
func (g *graph) addPipeline(c *configs.Config, p router.Pipeline) {
	n := &node{id: fmt.Sprintf("pipeline%d", len(g.pipelines)), shape: pipelineShape, lines: []string{p.Name}}
	var names []string
	remembers := false
	for _, m := range p.Middleware {
		names = append(names, m.Name)
		remembers = remembers || placeOf(m) == middleware.PlaceDedup
	}
	if len(names) > 0 {
		n.lines = append(n.lines, strings.Join(names, ", "))
	}
	n.lines = append(n.lines, p.Handler.Type)
	g.pipelines = append(g.pipelines, n)

	source := g.nodes[string(p.From)]
	g.edges = append(g.edges, edge{from: source, to: n})
	if p.To != "" {
		g.edges = append(g.edges, edge{from: n, to: g.nodes[string(p.To)]})
	} else if isImpatient(c.Router, p.From) {
		g.edges = append(g.edges, edge{from: n, to: source, label: "reply", side: true})
	}
	for _, ref := range pipelineReferences(p) {
		e := edge{from: n, to: g.nodes[ref.value], label: ref.key}
		if ref.middleware {
			e.label, e.side = ref.by, true
		}
		if e.to != nil && !slices.Contains(g.edges, e) {
			g.edges = append(g.edges, e)
		}
	}
	if remembers {
		g.edges = append(g.edges, edge{from: n, to: g.storeNode(c), label: "ledger", side: true})
	}
	if user, ok := p.Handler.Config.(handlers.StoreUser); ok && user.NeedsStore() != "" {
		g.edges = append(g.edges, edge{from: n, to: g.storeNode(c), label: "rows"})
	}
}

// storeNode returns the node of the store and adds it at the first call.
func (g *graph) storeNode(c *configs.Config) *node {
	if g.store == nil {
		g.store = &node{id: "store", shape: storeShape, lines: []string{"store (" + c.Store.Type + ")"}}
	}
	return g.store
}

func placeOf(m router.Middleware) middleware.Place {
	kind, _ := plugin.Registered().Kind("middleware")
	info, _ := kind.Lookup(m.Type)
	described, _ := info.Extra.(middleware.Plugin)
	return described.Place
}

// isImpatient reports whether a caller waits for the result of a topic's messages.
func isImpatient(c router.Config, ref transports.TopicRef) bool {
	name, topic, _ := ref.Split()
	for _, t := range c.Transports {
		if t.Name == name {
			traits, err := t.Config.Topic(topic, transports.Consume)
			return err == nil && traits.Impatient
		}
	}
	return false
}

// drawings has a function for each format.
var drawings = map[string]func(io.Writer, *graph) error{"mermaid": drawMermaid, "dot": drawDOT}

// drawNodes calls draw for each node, with its indentation. It calls begin before the nodes of a
// group, and writes end after them.
func (g *graph) drawNodes(b *strings.Builder, draw func(by string, n *node), begin func(*group), end string) {
	for _, t := range g.transports {
		begin(t)
		for _, n := range t.nodes {
			draw("    ", n)
		}
		b.WriteString(end)
	}
	for _, n := range g.pipelines {
		draw("  ", n)
	}
	if g.store != nil {
		draw("  ", g.store)
	}
}

// drawMermaid writes a Mermaid flowchart.
func drawMermaid(out io.Writer, g *graph) error {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	shapes := [...][2]string{topicShape: {"[", "]"}, pipelineShape: {"([", "])"}, devicesShape: {"[[", "]]"}, storeShape: {"[(", ")]"}}
	draw := func(by string, n *node) {
		s := shapes[n.shape]
		fmt.Fprintf(&b, "%s%s%s%s%s\n", by, n.id, s[0], mermaidText(n.lines...), s[1])
	}
	g.drawNodes(&b, draw, func(t *group) { fmt.Fprintf(&b, "  subgraph %s[%s]\n", t.id, mermaidText(t.label)) }, "  end\n")
	for _, e := range g.edges {
		arrow := "-->"
		if e.side {
			arrow = "-.->"
		}
		if e.label != "" {
			arrow += "|" + mermaidText(e.label) + "|"
		}
		fmt.Fprintf(&b, "  %s %s %s\n", e.from.id, arrow, e.to.id)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// mermaidText returns a label. Mermaid has entities instead of escapes. It would read some
// characters as Markdown, so these are escaped too.
func mermaidText(lines ...string) string {
	var escaped []string
	for _, line := range lines {
		escaped = append(escaped, mermaidEntities.Replace(line))
	}
	return `"` + strings.Join(escaped, "<br/>") + `"`
}

var mermaidEntities = strings.NewReplacer("#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "&", "#amp;", "`", "#96;", "*", "#42;", "_", "#95;", "\n", " ", "\r", " ")

// drawDOT writes a Graphviz graph.
func drawDOT(out io.Writer, g *graph) error {
	var b strings.Builder
	b.WriteString("digraph pentrough {\n  rankdir=LR\n  node [fontname=\"sans-serif\"]\n  edge [fontname=\"sans-serif\"]\n")
	shapes := [...]string{topicShape: "box", pipelineShape: "box, style=rounded", devicesShape: "box3d", storeShape: "cylinder"}
	draw := func(by string, n *node) {
		fmt.Fprintf(&b, "%s%s [label=%s, shape=%s]\n", by, n.id, dotText(n.lines...), shapes[n.shape])
	}
	g.drawNodes(&b, draw, func(t *group) { fmt.Fprintf(&b, "  subgraph cluster_%s {\n    label=%s\n", t.id, dotText(t.label)) }, "  }\n")
	for _, e := range g.edges {
		var attributes []string
		if e.label != "" {
			attributes = append(attributes, "label="+dotText(e.label))
		}
		if e.side {
			attributes = append(attributes, "style=dashed")
		}
		text := ""
		if attributes != nil {
			text = " [" + strings.Join(attributes, ", ") + "]"
		}
		fmt.Fprintf(&b, "  %s -> %s%s\n", e.from.id, e.to.id, text)
	}
	b.WriteString("}\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// dotText returns a quoted string.
func dotText(lines ...string) string {
	var escaped []string
	for _, line := range lines {
		escaped = append(escaped, dotEscapes.Replace(line))
	}
	return `"` + strings.Join(escaped, `\n`) + `"`
}

var dotEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ", "\r", " ")
