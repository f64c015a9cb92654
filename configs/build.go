package configs

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/spelling"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

// builder decodes the tree of a file into typed parts and collects the problems.
type builder struct {
	decoder  plugin.Decoder
	problems []problem
	warnings []problem
	// unsubstituted has the problems of substitutions.
	unsubstituted []problem
}

// file is a decoded file that isn't checked yet.
type file struct {
	// empty is true if the file has no keys.
	empty      bool
	host       hostTable
	store      storeTable
	tracing    tracingTable
	inventory  inventoryTable
	transports map[string]transport
	// unsound has the names of transports whose table couldn't be decoded.
	unsound   map[string]bool
	pipelines []*pipeline
}

type transport struct {
	name   string
	inst   plugin.Instance
	config transports.Config
	// devices is true if devices connect to the transport.
	devices bool
	// selfContained is true if the transport connects to nothing outside the host.
	selfContained bool
	// connections is how many connections the transport may have; see shares.go.
	connections int
	// protocol and framing are the names of the plugins that the table names, or "".
	protocol, framing string
}

type pipeline struct {
	name, path string
	table      pipelineTable
	// middleware has the instances of the list, without those that couldn't be decoded.
	middleware []plugin.Instance
	// listed has the whole list. An entry that couldn't be decoded is replaced by the plugin that
	// was probably meant, without a Config.
	listed  []plugin.Instance
	handler *plugin.Instance
	// given has the keys that the file sets.
	given map[string]any
	// source describes the topic of `from`; it is nil if that topic has a problem.
	source *transports.Topic
}

func (b *builder) fail(path, what, allowed, meant string) {
	b.problems = append(b.problems, problem{path: path, message: plugin.Describe(what, allowed, meant)})
}

func (b *builder) warn(path, format string, args ...any) {
	b.warnings = append(b.warnings, problem{path: path, message: fmt.Sprintf(format, args...)})
}

// all returns the problems of the builder and of the decoder. If the substitution in a string
// failed, it returns no other problem of that string.
func (b *builder) all() []problem {
	failed := map[string]bool{}
	for _, p := range b.unsubstituted {
		failed[p.path] = true
	}
	all := slices.Clone(b.problems)
	for _, p := range b.decoder.Problems {
		all = append(all, problem{path: p.Path, message: p.Message, text: p.Text, offset: p.Offset})
	}
	all = slices.DeleteFunc(all, func(p problem) bool { return failed[p.path] })
	return append(all, b.unsubstituted...)
}

// file decodes the tree of a file.
func (b *builder) file(tree map[string]any) *file {
	f := &file{empty: len(tree) == 0, host: hostDefaults, store: storeDefaults, tracing: tracingDefaults, transports: map[string]transport{}, unsound: map[string]bool{}}
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		if !slices.Contains(sections, key) {
			meant := spelling.Nearest(key, sections)
			if kind := b.decoder.OtherKind("", key); meant == "" && kind != "" {
				meant = plugin.Join(kind, key)
			}
			b.fail(plugin.Join("", key), "unknown key", plugin.Names(sections), meant)
		}
	}
	if m, ok := b.section(tree, hostSection); ok {
		b.decoder.Table(hostSection, m, &f.host)
	}
	if m, ok := b.section(tree, storeSection); ok {
		b.store(m, &f.store)
	}
	if m, ok := b.section(tree, tracingSection); ok {
		b.tracing(m, &f.tracing)
	}
	if m, ok := b.section(tree, inventorySection); ok {
		b.decoder.Table(inventorySection, m, &f.inventory)
	}
	b.decoder.Tables = map[string]map[string]any{}
	for _, kind := range kinds {
		m, _ := b.section(tree, kind)
		b.names(kind, m)
		b.decoder.Tables[kind] = m
	}
	for _, kind := range kinds {
		for _, name := range slices.Sorted(maps.Keys(b.decoder.Tables[kind])) {
			inst, ok := b.decoder.Named(kind, name)
			if kind != "transport" {
				continue
			}
			if !ok {
				f.unsound[name] = true
				continue
			}
			f.transports[name] = b.transport(name, inst)
		}
	}
	m, _ := b.section(tree, pipelineSection)
	b.names(pipelineSection, m)
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if p := b.pipeline(name, m[name]); p != nil {
			f.pipelines = append(f.pipelines, p)
		}
	}
	return f
}

// section returns a top-level table and whether the file has it.
func (b *builder) section(tree map[string]any, name string) (map[string]any, bool) {
	v, ok := tree[name]
	if !ok {
		return nil, false
	}
	m, ok := v.(map[string]any)
	if !ok {
		allowed := "[" + name + "]"
		if !slices.Contains(plainSections, name) {
			allowed = "[" + name + ".NAME]"
		}
		b.fail(name, "only a table can stand here", allowed, "")
	}
	return m, ok
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

func (b *builder) names(section string, m map[string]any) {
	for name := range m {
		if !validName.MatchString(name) {
			b.fail(plugin.Join(section, name), "not a valid name", "letters, digits, - and _, beginning with a letter or digit", "")
		}
	}
}

// store decodes [store] and checks that its settings fit its type.
func (b *builder) store(m map[string]any, into *storeTable) {
	b.decoder.Table(storeSection, m, into)
	if name, _ := plugin.Plain(m["type"]).(string); name != "" && name != into.Type {
		return // an unknown type, which is already reported
	}
	for key, of := range map[string]string{"path": sqliteStore, "url": postgresStore} {
		if _, given := m[key]; given && into.Type != of {
			b.fail(plugin.Join(storeSection, key), "a "+into.Type+" store has no such setting", "", "")
		}
	}
	switch into.Type {
	case sqliteStore:
		into.Path = cmp.Or(into.Path, defaultLedger)
	case postgresStore:
		path := plugin.Join(storeSection, "url")
		if slices.ContainsFunc(b.decoder.Problems, func(p plugin.Problem) bool { return p.Path == path }) {
			return // its own error is reported already
		}
		const form = `postgres://USER:PASSWORD@HOST:PORT/DATABASE`
		if into.URL == "" {
			b.fail(path, "missing: the database of a postgres store", form, "")
		} else if u, err := url.Parse(string(into.URL)); err != nil || u.Host == "" {
			b.fail(path, "the URL has no host", form, "")
		}
	}
}

func (b *builder) transport(name string, inst plugin.Instance) transport {
	kind, _ := b.decoder.Set.Kind("transport")
	info, _ := kind.Lookup(inst.Type)
	described, _ := info.Extra.(transports.Plugin)
	named := func(key string) string { return b.decoder.Instances[plugin.Join(inst.Path, key)].Name }
	return transport{
		name: name, inst: inst, config: inst.Config.(transports.Config), devices: described.Devices, selfContained: described.SelfContained,
		protocol: named("protocol"), framing: named("framing"),
	}
}

func (b *builder) pipeline(name string, v any) *pipeline {
	p := &pipeline{name: name, path: plugin.Join(pipelineSection, name), table: pipelineDefaults}
	m, ok := v.(map[string]any)
	if !ok {
		b.fail(p.path, "only a table can stand here", "["+p.path+"]", "")
		return nil
	}
	p.given = m
	b.decoder.Table(p.path, m, &p.table)
	b.key(p)

	list := plugin.Join(p.path, "middleware")
	places := []string{list} // the path of a single name without a list
	for i := range p.table.Middleware {
		places = append(places, plugin.Index(list, i))
	}
	for _, at := range places {
		if inst, ok := b.decoder.Instances[at]; ok {
			p.middleware = append(p.middleware, inst)
			p.listed = append(p.listed, inst)
		} else if meant, ok := b.decoder.Meant[at]; ok {
			p.listed = append(p.listed, meant)
		}
	}
	at := plugin.Join(p.path, "handler")
	if _, given := m["handler"]; !given {
		if inst, ok := b.decoder.Plugin("handler", at, defaultHandler); ok {
			p.handler = &inst
		}
	} else if inst, ok := b.decoder.Instances[at]; ok {
		p.handler = &inst
	}
	return p
}

var keyShape = regexp.MustCompile(`^(payload(\.[^.]+)+|metadata\..+)$`)

func (b *builder) key(p *pipeline) {
	if p.table.Key != "" && !keyShape.MatchString(p.table.Key) {
		b.fail(plugin.Join(p.path, "key"), "not a valid key", "payload.FIELD[.FIELD...] of a JSON payload, or metadata.KEY", "")
	}
}

// askHandlers calls check for the handler of each pipeline.
func (b *builder) askHandlers(f *file, check func(host, pipeline string, handler handlers.Config) error) {
	for _, p := range f.pipelines {
		err := check(cmp.Or(f.host.Name, machineName()), p.name, p.handler.Config.(handlers.Config))
		if err == nil {
			continue
		}
		path := p.handler.Path
		if field, ok := errors.AsType[*plugin.FieldError](err); ok {
			path, err = path+"."+field.Field, errors.New(field.Message)
		}
		b.fail(path, err.Error(), "", "")
	}
}

// finish returns the configuration of a file without problems.
func (f *file) finish() *Config {
	c := &Config{
		Host:  Host{Name: f.host.Name, Admin: f.host.Admin, AdminHosts: f.host.AdminHosts, ShutdownTimeout: f.host.ShutdownTimeout, Log: Log{Format: f.host.Log.Format}},
		Store: Store{Type: f.store.Type, Path: f.store.Path, URL: f.store.URL},
	}
	c.Inventory = Inventory(f.inventory)
	if f.tracing.Endpoint != "" {
		c.Tracing = Tracing(f.tracing)
	}
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	c.Host.Log.Level = levels[f.host.Log.Level]
	if c.Host.Name == "" {
		c.Host.Name = machineName()
	}
	c.Router.Name, c.Router.ShutdownTimeout = c.Host.Name, c.Host.ShutdownTimeout
	c.Router.Memory = f.host.Memory.budgets()
	for _, name := range slices.Sorted(maps.Keys(f.transports)) {
		t := f.transports[name]
		c.Router.Transports = append(c.Router.Transports, router.Transport{Name: name, Type: t.inst.Type, Config: t.config, Protocol: t.protocol, Framing: t.framing, Connections: t.connections})
	}
	for _, p := range f.pipelines {
		c.Router.Pipelines = append(c.Router.Pipelines, p.finish())
	}
	return c
}

func (p *pipeline) finish() router.Pipeline {
	out := router.Pipeline{
		Name: p.name, From: p.table.From, To: p.table.To, Key: p.table.Key, Competing: p.table.Competing,
		Handler:    router.Handler{Type: p.handler.Type, Config: p.handler.Config.(handlers.Config)},
		DropErrors: p.table.OnError == "drop" || p.table.OnError == "" && !p.source.Broker,
		Lanes:      router.Lanes{Limit: p.table.LaneLimit, Stall: p.table.Stall, AckDeadline: p.table.AckDeadline},
		Batch:      router.Batch{Size: p.table.Batch.Size, Interval: p.table.Batch.Interval},
	}
	for _, m := range p.middleware {
		out.Middleware = append(out.Middleware, router.Middleware{Name: m.Name, Type: m.Type, Config: m.Config.(middleware.Config)})
	}
	return out
}

// machineName returns the host name of the machine, or "pentrough" if it is unknown.
func machineName() string {
	name, err := os.Hostname()
	if err != nil || strings.TrimSpace(name) == "" {
		return "pentrough"
	}
	return name
}
