package configs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/router/middleware"
)

// described returns the properties of a middleware's plugin.
func (c *checker) described(m plugin.Instance) middleware.Plugin {
	kind, _ := c.decoder.Set.Kind("middleware")
	info, _ := kind.Lookup(m.Type)
	p, _ := info.Extra.(middleware.Plugin)
	return p
}

// swallowers returns the names of the middleware plugins that take failed messages.
func (c *checker) swallowers() []string {
	kind, _ := c.decoder.Set.Kind("middleware")
	var names []string
	for _, name := range kind.Names() {
		if c.described(plugin.Instance{Type: name}).Swallows {
			names = append(names, name)
		}
	}
	return names
}

// list checks a pipeline's middleware: no plugin is in the list twice, the order is right, and
// poison doesn't publish to the pipeline's source.
func (c *checker) list(p *pipeline) {
	at := plugin.Join(p.path, "middleware")
	for i, m := range p.listed {
		place := c.described(m).Place
		for _, earlier := range p.listed[:i] {
			if m.Config == nil || earlier.Config == nil {
				continue // one of them is a guess
			}
			if earlier.Name == m.Name || earlier.Type == m.Type && place != middleware.PlaceAny {
				c.fail(at, fmt.Sprintf("%s is in the list twice", named(m)), "", "")
				break
			}
		}
		if place != middleware.PlacePoison {
			continue
		}
		for _, ref := range m.References {
			if ref.To == "topic" && ref.Value == string(p.table.From) {
				c.fail(ref.Path, fmt.Sprintf("pipeline %q would consume its own failed messages: %s is its source", p.name, ref.Shown), "another topic", "")
			}
		}
	}
	c.order(p, at)
}

// order refuses a list in the wrong order and suggests the right order.
func (c *checker) order(p *pipeline, at string) {
	place := func(m plugin.Instance) middleware.Place { return c.described(m).Place }
	var outer *plugin.Instance
	for _, m := range p.listed {
		if place(m) == middleware.PlaceAny {
			continue
		}
		if outer != nil && place(m) < place(*outer) {
			c.fail(at, fmt.Sprintf("%s must stand before %s", named(m), named(*outer)), c.inOrder(p.listed), "")
			return
		}
		outer = &m
	}
}

// inOrder returns the list in the right order. Middleware without a fixed place stays where it is.
func (c *checker) inOrder(list []plugin.Instance) string {
	var placed []plugin.Instance
	for _, m := range list {
		if c.described(m).Place != middleware.PlaceAny {
			placed = append(placed, m)
		}
	}
	slices.SortStableFunc(placed, func(a, b plugin.Instance) int { return int(c.described(a).Place - c.described(b).Place) })
	names := make([]string, len(list))
	for i, m := range list {
		if c.described(m).Place != middleware.PlaceAny {
			m, placed = placed[0], placed[1:]
		}
		names[i] = strconv.Quote(m.Name)
	}
	return "[" + strings.Join(names, ", ") + "]"
}

func named(m plugin.Instance) string {
	if m.Name != m.Type {
		return fmt.Sprintf("%q (%s)", m.Name, m.Type)
	}
	return strconv.Quote(m.Name)
}
