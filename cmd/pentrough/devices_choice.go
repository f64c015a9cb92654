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

// fleet has all devices of a host, or of a table.
type fleet struct {
	source    string
	time      time.Time
	fromTable bool
	devices   []listed
}

// listed is a device of a host. A device of a table also has its row.
type listed struct {
	admin.Device
	row map[string]any
}

// jsonValue returns what to print about the device as JSON.
func (d *listed) jsonValue() any {
	if d.row != nil {
		return d.row
	}
	return d.Device
}

// choice has the flags that choose and sort devices.
type choice struct {
	pattern         string
	online, offline bool
	transport       string
	labels          map[string]string
	sort            string
	reverse         bool
	limit           int
	wide            bool

	name *regexp.Regexp
}

// orders has the sort orders. Equal devices are sorted by name.
var orders = map[string]func(a, b listed) int{
	"device":  byName,
	"since":   func(a, b listed) int { return stateSince(b).Compare(stateSince(a)) },
	"address": func(a, b listed) int { return addressOf(a.RemoteAddr).Compare(addressOf(b.RemoteAddr)) },
	byHeard:   func(a, b listed) int { return lastHeard(b).Compare(lastHeard(a)) },
	byWaiting: func(a, b listed) int { return cmp.Compare(b.Waiting+b.Asked, a.Waiting+a.Asked) },
	bySeen:    func(a, b listed) int { return timeField(b.row, "last_seen").Compare(timeField(a.row, "last_seen")) },
}

// byWaiting and byHeard need a host, and bySeen needs a table.
const (
	byHeard   = "heard"
	byWaiting = "waiting"
	bySeen    = "seen"
)

// stateSince returns the time at which the device came online or went offline. It is zero for an
// offline device of a host, because the host doesn't know the time.
func stateSince(d listed) time.Time {
	if !d.Online && d.row != nil {
		return timeField(d.row, "changed_at")
	}
	if d.ConnectedAt == nil {
		return time.Time{}
	}
	return *d.ConnectedAt
}

// lastHeard returns when a host last heard the device. It is zero if the device is offline.
func lastHeard(d listed) time.Time {
	if d.Traffic == nil {
		return time.Time{}
	}
	return d.Traffic.LastHeard
}

func addressOf(text string) netip.AddrPort {
	a, _ := netip.ParseAddrPort(text) // a text that isn't an address comes first
	return a
}

// byName compares two names. Addresses compare as numbers, and they come before other names.
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

func (c *choice) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&c.online, "online", false, "only connected devices")
	f.BoolVar(&c.offline, "offline", false, "only devices that aren't connected")
	f.StringVar(&c.transport, "transport", "", "only devices of this transport")
	f.StringToStringVar(&c.labels, "label", nil, "only devices with this label, KEY=VALUE; with several, a device must have all")
	f.StringVar(&c.sort, "sort", "device", "sort by device, since (newest first), address, waiting (most first), heard (newest\nfirst), both only of a host, or seen (newest first, only of a table)")
	f.BoolVar(&c.reverse, "reverse", false, "reverse the order")
	f.IntVar(&c.limit, "limit", 0, "show at most this many devices (default: all)")
}

// check checks the flags and compiles the pattern.
func (c *choice) check() error {
	if _, ok := orders[c.sort]; !ok {
		return advise(fmt.Errorf("--sort: there is no order %s", c.sort), "name one of %s", strings.Join(slices.Sorted(maps.Keys(orders)), ", "))
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

// chooseDevices returns the devices that match the flags, sorted. It doesn't apply the limit.
func (c *choice) chooseDevices(devices []listed) []listed {
	chosen := slices.DeleteFunc(slices.Clone(devices), func(d listed) bool { return !c.matches(d) })
	slices.SortStableFunc(chosen, func(a, b listed) int {
		order := cmp.Or(orders[c.sort](a, b), byName(a, b), cmp.Compare(a.Transport, b.Transport))
		if c.reverse {
			order = -order
		}
		return order
	})
	return chosen
}

func (c *choice) matches(d listed) bool {
	for key, value := range c.labels {
		if got, ok := d.Labels[key]; !ok || got != value {
			return false
		}
	}
	return (c.name == nil || c.name.MatchString(d.Device.Device)) && (c.transport == "" || c.transport == d.Transport) && !(c.online && !d.Online) && !(c.offline && d.Online)
}

// formatTable returns a table of the chosen devices and a summary line. It has at most rows rows
// if rows is above 0.
func (c *choice) formatTable(all *fleet, chosen []listed, rows int) string {
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
	line := func(device, transport, state, since, address, waiting, asked, labels string, more []string) {
		cells := []string{device}
		if several {
			cells = append(cells, transport)
		}
		cells = append(cells, state, since, address, waiting, asked)
		if labelled {
			cells = append(cells, labels)
		}
		if c.wide {
			cells = append(cells, more...)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if len(shown) > 0 && all.fromTable {
		fmt.Fprintln(w, strings.Join(tableHeadings, "\t"))
	} else if len(shown) > 0 {
		line("DEVICE", "TRANSPORT", "STATE", "SINCE", "ADDRESS", "WAITING", "ASKED", "LABELS", wideHeadings)
	}
	for _, d := range shown {
		if all.fromTable {
			fmt.Fprintln(w, strings.Join(d.rowCells(), "\t"))
			continue
		}
		name, labels := printable.Text(d.Device.Device), labelText(d.Labels)
		if !d.Online {
			state := "offline"
			if d.Banned {
				state += " (banned)"
			}
			line(name, d.Transport, state, "-", orDash(printable.Text(d.Dialed)), "-", "-", labels, d.wideCells())
			continue
		}
		line(name, d.Transport, "online", localTime(stateSince(d)), printable.Text(d.RemoteAddr), fmt.Sprint(d.Waiting), fmt.Sprint(d.Asked), labels, d.wideCells())
	}
	_ = w.Flush() // into memory
	switch {
	case len(shown) < len(chosen):
		fmt.Fprintf(&b, "%d of %d devices shown, %d online\n", len(shown), len(chosen), online)
	case len(chosen) == 0 && len(all.devices) == 0 && all.fromTable:
		fmt.Fprintln(&b, "the table has no devices")
	case len(chosen) == 0 && len(all.devices) == 0:
		fmt.Fprintln(&b, "no device is connected")
	case len(chosen) == 0:
		fmt.Fprintf(&b, "none of %d %s matches\n", len(all.devices), plural(len(all.devices), "device", "devices"))
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

var wideHeadings = []string{"HEARD", "FRAMES IN", "BYTES IN", "FRAMES OUT", "BYTES OUT", "LAST ERROR"}

// wideCells returns the cells of --wide, in the order of wideHeadings.
func (d *listed) wideCells() []string {
	cells := []string{"-", "-", "-", "-", "-", "-"}
	if t := d.Traffic; t != nil {
		cells = []string{localTime(t.LastHeard), fmt.Sprint(t.FramesIn), fmt.Sprint(t.BytesIn), fmt.Sprint(t.FramesOut), fmt.Sprint(t.BytesOut), "-"}
	}
	if d.LastErrorAt != nil {
		cells[5] = localTime(*d.LastErrorAt) + " " + printable.Text(d.LastError)
	}
	return cells
}
