package configs

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/spelling"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/protocol"
)

// check checks how the parts of a file fit together.
func check(b *builder, f *file) {
	c := &checker{builder: b, file: f, topics: map[string]*transports.Topic{}}
	for _, ref := range b.decoder.References {
		if c.alreadySeen(ref) {
			continue
		}
		switch ref.To {
		case "topic":
			c.topic(ref)
		case "devices":
			c.devices(ref)
		}
	}
	for _, p := range f.pipelines {
		p.source = c.topics[plugin.Join(p.path, "from")]
		c.list(p)
		c.errors(p)
		c.ledger(p)
		c.store(p)
		c.answers(p)
		c.lost(p)
		c.misspelt(p)
	}
	c.loops()
	c.streams()
	c.listeners()
	c.inventory()
	c.unused()
}

// checker is the state of one check.
type checker struct {
	*builder
	file *file
	// topics has the description of each topic that is referred to, by the path of the reference.
	// There is no entry if the topic can't be used in that way.
	topics map[string]*transports.Topic
	looked map[plugin.Ref]bool // for alreadySeen
}

// alreadySeen reports whether it was called with ref before. If a named table is used several
// times, the decoder lists its references several times.
func (c *checker) alreadySeen(ref plugin.Ref) bool {
	if c.looked == nil {
		c.looked = map[plugin.Ref]bool{}
	}
	again := c.looked[ref]
	c.looked[ref] = true
	return again
}

// transport returns the transport with that name, and reports a problem if there is none. known
// are the names to suggest.
func (c *checker) transport(ref plugin.Ref, name string, known []string) (transport, bool) {
	t, ok := c.file.transports[name]
	if !ok && !c.file.unsound[name] {
		what := "there is no transport " + strconv.Quote(name)
		if ref.Shown != strconv.Quote(ref.Value) {
			what = ref.Shown + " isn't the name of a transport"
		}
		meant := spelling.Nearest(name, known)
		if kind := c.decoder.OtherKind("transport", name); kind != "" {
			what, meant = fmt.Sprintf("%q is a %s, not a transport", name, kind), ""
			if ref.Shown != strconv.Quote(ref.Value) {
				what = ref.Shown + " is the name of a " + kind + ", not of a transport"
			}
		}
		c.fail(ref.Path, what, plugin.Names(known), meant)
	}
	return t, ok
}

func (c *checker) topic(ref plugin.Ref) {
	name, topic, err := transports.TopicRef(ref.Value).Split()
	if err != nil {
		c.fail(ref.Path, ref.Shown+" is not of the form transport:topic", "", c.meantTopic(ref.Value))
		return
	}
	t, ok := c.transport(ref, name, slices.Sorted(maps.Keys(c.file.transports)))
	if !ok {
		return
	}
	use := transports.Produce
	for _, p := range c.file.pipelines {
		if ref.Path == plugin.Join(p.path, "from") {
			use = transports.Consume
		}
	}
	described, err := t.config.Topic(topic, use)
	if err != nil {
		c.fail(ref.Path, c.decoder.Redact(err.Error()), "", "")
		return
	}
	if described.Warning != "" {
		c.warn(ref.Path, "%s", c.decoder.Redact(described.Warning))
	}
	c.topics[ref.Path] = &described
}

// meantTopic returns the topic that was probably meant by a text without the colon between
// transport and topic. It returns "" if that isn't clear.
func (c *checker) meantTopic(text string) string {
	for name := range c.file.transports {
		if rest, ok := strings.CutPrefix(text, name); ok && len(rest) > 1 && strings.ContainsRune("./ =@", rune(rest[0])) {
			return name + ":" + strings.TrimLeft(rest, "./ =@")
		}
	}
	return ""
}

func (c *checker) devices(ref plugin.Ref) {
	var holders []string
	for _, name := range slices.Sorted(maps.Keys(c.file.transports)) {
		if c.file.transports[name].devices {
			holders = append(holders, name)
		}
	}
	t, ok := c.transport(ref, ref.Value, holders)
	if !ok || t.devices {
		return
	}
	c.fail(ref.Path, fmt.Sprintf("the transport %s has no devices", ref.Shown), plugin.Names(holders), spelling.Nearest(ref.Value, holders))
}

// errors checks that on_error, the source and the middleware fit together.
func (c *checker) errors(p *pipeline) {
	if p.source == nil {
		return
	}
	swallows := slices.ContainsFunc(p.middleware, func(m plugin.Instance) bool { return c.described(m).Swallows })
	// An entry that couldn't be decoded may be the middleware that is needed.
	whole := len(p.middleware) == len(p.table.Middleware)
	at := plugin.Join(p.path, "middleware")
	switch {
	case swallows || !whole:
	case p.table.OnError == "poison":
		c.fail(at, `on_error = "poison" needs a middleware that takes failed messages`, plugin.Names(c.swallowers()), "")
	case p.given["on_error"] == nil && p.source.Broker:
		c.fail(at, fmt.Sprintf("if a message of %q fails, the broker redelivers it without end", p.table.From),
			fmt.Sprintf(`a list with a middleware that takes failed messages (%s), or on_error = "drop"`, plugin.Names(c.swallowers())), "")
	}
	if p.table.Competing && p.source.Stream == "" {
		c.fail(plugin.Join(p.path, "competing"), fmt.Sprintf("each pipeline gets every message of %q, so that pipelines can't compete for them", p.table.From), "a source that is a shared queue", "")
	}
}

// ledger refuses settings that need a durable ledger if the file has none.
func (c *checker) ledger(p *pipeline) {
	if p.handler == nil {
		return
	}
	user, ok := p.handler.Config.(handlers.LedgerUser)
	if !ok || user.NeedsLedger() == "" {
		return
	}
	at := plugin.Join(p.path, "handler")
	if !slices.ContainsFunc(p.listed, func(m plugin.Instance) bool { return c.described(m).Place == middleware.PlaceDedup }) {
		c.fail(at, user.NeedsLedger()+" needs dedup in the pipeline's middleware", "", "")
	}
	if c.file.store.Type == MemoryStore {
		c.fail(at, user.NeedsLedger()+" needs a store that outlives the process", `[store] type = "sqlite" or "postgres"`, "")
	}
}

// store refuses handlers that need a durable store if the file has none.
func (c *checker) store(p *pipeline) {
	if p.handler == nil || c.file.store.Type != MemoryStore {
		return
	}
	if user, ok := p.handler.Config.(handlers.StoreUser); ok && user.NeedsStore() != "" {
		c.fail(plugin.Join(p.path, "handler"), user.NeedsStore()+" needs a store that outlives the process", `[store] type = "sqlite" or "postgres"`, "")
	}
}

// answers refuses a handler that recognises the answers of devices whose protocol names them.
func (c *checker) answers(p *pipeline) {
	if p.handler == nil {
		return
	}
	matcher, ok := p.handler.Config.(handlers.AnswerMatcher)
	if !ok || matcher.MatchesAnswers() == "" {
		return
	}
	for _, ref := range p.handler.References {
		t := c.file.transports[ref.Value]
		namer, ok := t.config.(protocol.AnswerNamer)
		if ref.To == "devices" && ok && namer.NamesAnswers() != "" {
			at := p.handler.Path
			for key := range strings.SplitSeq(matcher.MatchesAnswers(), ".") {
				at = plugin.Join(at, key)
			}
			c.fail(at,
				fmt.Sprintf("transport.%s already says which frames are answers (%s)", ref.Value, namer.NamesAnswers()), "", "")
		}
	}
}

// lost warns if a pipeline consumes from a broker and its results are lost. With to = "" the
// author says that this is intended.
func (c *checker) lost(p *pipeline) {
	if p.source == nil || !p.source.Broker || p.given["to"] != nil || p.handler == nil {
		return
	}
	kind, _ := c.decoder.Set.Kind("handler")
	info, _ := kind.Lookup(p.handler.Type)
	if described, _ := info.Extra.(handlers.Plugin); described.Produces != "" {
		c.warn(p.path, "without to, %s are lost, except those whose sender names a reply_to; if that is intended, write to = \"\"", described.Produces)
	}
}

// misspelt warns about a source to which nothing publishes, if its name is probably misspelt:
// something publishes to a topic with nearly the same name, and no pipeline consumes that topic.
func (c *checker) misspelt(p *pipeline) {
	if p.source == nil || p.source.Warning != "" {
		return
	}
	from := string(p.table.From)
	transport, topic, _ := p.table.From.Split()
	read := map[string]bool{}
	for _, q := range c.file.pipelines {
		read[string(q.table.From)] = true
	}
	var near []plugin.Ref
	for _, ref := range c.decoder.References {
		if ref.To != "topic" || read[ref.Value] && ref.Value != from || ref.Path == plugin.Join(p.path, "from") {
			continue
		}
		if ref.Value == from {
			return
		}
		if other, ok := strings.CutPrefix(ref.Value, transport+":"); ok && spelling.Misspelt(topic, other) {
			near = append(near, ref)
		}
	}
	if len(near) > 0 {
		c.warn(plugin.Join(p.path, "from"), "nothing in this file publishes to %q; did you mean %q, which %s publishes to?", from, near[0].Value, near[0].Path)
	}
}

// streams refuses pipelines that share a queue by accident, because each would get only some of
// its messages.
func (c *checker) streams() {
	type stream struct{ system, name string }
	users := map[stream][]*pipeline{}
	for _, p := range c.file.pipelines {
		if p.source == nil || p.source.Stream == "" {
			continue
		}
		name, _, err := p.table.From.Split()
		if err != nil {
			continue
		}
		// The name of a system can't equal the name of a transport, as it has other characters.
		s := stream{cmp.Or(p.source.System, name), p.source.Stream}
		users[s] = append(users[s], p)
	}
	for s, sharing := range users {
		if len(sharing) < 2 || !slices.ContainsFunc(sharing, func(p *pipeline) bool { return !p.table.Competing }) {
			continue
		}
		first := sharing[0]
		for _, p := range sharing[1:] {
			c.fail(plugin.Join(p.path, "from"),
				fmt.Sprintf("pipeline %q also consumes from %s (%q), so that each would get only some of the messages", first.name, s.name, first.table.From),
				"a queue of its own for each pipeline, or competing = true in all of them", "")
		}
	}
}

// unused warns about tables that no pipeline uses.
func (c *checker) unused() {
	if c.file.empty {
		c.warn("", "the file is empty, so the host will do nothing; pentrough init writes a configuration to start from")
		return
	}
	if len(c.file.pipelines) == 0 {
		c.warn("", "there is no [pipeline.NAME], so the host will do nothing")
		return
	}
	for _, kind := range kinds {
		if kind == "transport" {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(c.decoder.Tables[kind])) {
			if path := plugin.Join(kind, name); !c.decoder.Used[path] {
				c.warn(path, "nothing uses this %s", kind)
			}
		}
	}
}
