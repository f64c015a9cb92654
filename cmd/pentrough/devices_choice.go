package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/pentrough/pentrough/internal/admin"
	"github.com/pentrough/pentrough/internal/printable"
)

// fleet is all devices of a host, or of a table.
type fleet struct {
	source  string
	time    time.Time
	ofTable bool
	devices []listed
}

// listed is a device of a host; of a table if it has a row.
type listed struct {
	admin.Device
	row map[string]any
}

// said is what is told of it as JSON.
func (d *listed) said() any {
	if d.row != nil {
		return d.row
	}
	return d.Device
}

// choice is which devices are shown, and in which order.
type choice struct {
	pattern         string
	online, offline bool
	transport       string
	labels          map[string]string
	sort            string
	reverse         bool
	limit           int

	name *regexp.Regexp
}

// orders are the ways to sort. Devices that are equal are in the order of their names.
var orders = map[string]func(a, b listed) int{
	"device":  byName,
	"since":   func(a, b listed) int { return begun(b).Compare(begun(a)) },
	"address": func(a, b listed) int { return addressOf(a.RemoteAddr).Compare(addressOf(b.RemoteAddr)) },
	byWaiting: func(a, b listed) int { return cmp.Compare(b.Waiting+b.Asked, a.Waiting+a.Asked) },
	bySeen:    func(a, b listed) int { return at(b.row, "last_seen").Compare(at(a.row, "last_seen")) },
}

// The orders that only a host or only a table knows.
const (
	byWaiting = "waiting"
	bySeen    = "seen"
)

// begun is since when it is as it is; of those that are offline a host doesn't know.
func begun(d listed) time.Time {
	if !d.Online && d.row != nil {
		return at(d.row, "changed_at")
	}
	if d.ConnectedAt == nil {
		return time.Time{}
	}
	return *d.ConnectedAt
}

func addressOf(text string) netip.AddrPort {
	a, _ := netip.ParseAddrPort(text) // what is none comes first
	return a
}

// byName sorts addresses as numbers, before names.
func byName(a, b listed) int {
	x, errX := netip.ParseAddr(a.Device.Device)
	y, errY := netip.ParseAddr(b.Device.Device)
	switch {
	case errX == nil && errY == nil:
		return x.Compare(y)
	case errX == nil:
		return -1
	case errY == nil:
		return 1
	default:
		return cmp.Compare(a.Device.Device, b.Device.Device)
	}
}

func (c *choice) flags(f *pflag.FlagSet) {
	f.BoolVar(&c.online, "online", false, "only those that are connected")
	f.BoolVar(&c.offline, "offline", false, "only those that aren't")
	f.StringVar(&c.transport, "transport", "", "only those of this transport")
	f.StringToStringVar(&c.labels, "label", nil, "only those with this label, KEY=VALUE; several must all fit")
	f.StringVar(&c.sort, "sort", "device", "by device, since (newest first), address, waiting (of a host, most first) or seen (of a table, newest first)")
	f.BoolVar(&c.reverse, "reverse", false, "the other way round")
	f.IntVar(&c.limit, "limit", 0, "at most this many (default: all)")
}

// check reads what was given.
func (c *choice) check() error {
	if _, ok := orders[c.sort]; !ok {
		return advise(fmt.Errorf("--sort %s is no order", c.sort), "name one of %s", strings.Join(slices.Sorted(maps.Keys(orders)), ", "))
	}
	if c.limit < 0 {
		return advise(fmt.Errorf("--limit %d is negative", c.limit), "0 shows all")
	}
	if c.pattern != "" {
		quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(c.pattern))
		c.name = regexp.MustCompile("(?s)^" + quoted + "$")
	}
	return nil
}

// chosen returns the devices that fit, in order, without the limit.
func (c *choice) chosen(devices []listed) []listed {
	chosen := slices.DeleteFunc(slices.Clone(devices), func(d listed) bool { return !c.fits(d) })
	slices.SortStableFunc(chosen, func(a, b listed) int {
		order := cmp.Or(orders[c.sort](a, b), byName(a, b), cmp.Compare(a.Transport, b.Transport))
		if c.reverse {
			order = -order
		}
		return order
	})
	return chosen
}

func (c *choice) fits(d listed) bool {
	for key, value := range c.labels {
		if got, ok := d.Labels[key]; !ok || got != value {
			return false
		}
	}
	return (c.name == nil || c.name.MatchString(d.Device.Device)) && (c.transport == "" || c.transport == d.Transport) && !(c.online && !d.Online) && !(c.offline && d.Online)
}

// table is the devices as a table, of at most so many rows if that is above 0, and how many there are.
func (c *choice) table(all *fleet, chosen []listed, rows int) string {
	online := 0
	several, labelled := false, false
	for _, d := range chosen {
		if d.Online {
			online++
		}
		several = several || d.Transport != chosen[0].Transport
		labelled = labelled || len(d.Labels) > 0
	}
	shown := chosen
	for _, most := range []int{c.limit, rows} {
		if most > 0 {
			shown = shown[:min(len(shown), most)]
		}
	}
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(device, transport, state, since, address, waiting, asked, labels string) {
		cells := []string{device}
		if several {
			cells = append(cells, transport)
		}
		cells = append(cells, state, since, address, waiting, asked)
		if labelled {
			cells = append(cells, labels)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if len(shown) > 0 && all.ofTable {
		fmt.Fprintln(w, strings.Join(tableHeadings, "\t"))
	} else if len(shown) > 0 {
		line("DEVICE", "TRANSPORT", "STATE", "SINCE", "ADDRESS", "WAITING", "ASKED", "LABELS")
	}
	for _, d := range shown {
		if all.ofTable {
			fmt.Fprintln(w, strings.Join(d.cells(), "\t"))
			continue
		}
		name, labels := printable.Text(d.Device.Device), labelText(d.Labels)
		if !d.Online {
			line(name, d.Transport, "offline", "-", "-", "-", "-", labels)
			continue
		}
		line(name, d.Transport, "online", localTime(begun(d)), printable.Text(d.RemoteAddr), fmt.Sprint(d.Waiting), fmt.Sprint(d.Asked), labels)
	}
	_ = w.Flush() // into memory
	switch {
	case len(shown) < len(chosen):
		fmt.Fprintf(&b, "%d of %d devices shown, %d online\n", len(shown), len(chosen), online)
	case len(chosen) == 0 && len(all.devices) == 0 && all.ofTable:
		fmt.Fprintln(&b, "the table has no device")
	case len(chosen) == 0 && len(all.devices) == 0:
		fmt.Fprintln(&b, "no device is connected")
	case len(chosen) == 0:
		fmt.Fprintf(&b, "none of %d %s is like that\n", len(all.devices), plural(len(all.devices), "device", "devices"))
	default:
		fmt.Fprintf(&b, "%d %s, %d online\n", len(chosen), plural(len(chosen), "device", "devices"), online)
	}
	return b.String()
}

func labelText(labels map[string]string) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, printable.Text(key+"="+labels[key]))
	}
	return strings.Join(all, " ")
}
