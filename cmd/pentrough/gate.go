package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/admin"
	"github.com/pentrough/pentrough/internal/bans"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports/device"
)

// bansOf returns the store of the bans of devices, or nil if the host keeps them in memory. In
// SQLite, bans have a file of their own, as dead letters do: see deadLettersOf.
func bansOf(c *configs.Config) (*bans.Store, error) {
	switch c.Store.Type {
	case "sqlite":
		return bans.Open("sqlite:"+c.Store.Path+"-bans", c.Host.Name)
	case "postgres":
		return bans.Open(string(c.Store.URL), c.Host.Name)
	default:
		return nil, nil
	}
}

// deviceJSON returns a device as the admin listener shows it.
func deviceJSON(d router.FleetDevice) admin.Device {
	out := admin.Device{
		Device: d.Device, Transport: d.Transport, Online: d.Live != nil, Dialed: d.Dialed, Known: d.Known, Labels: d.Labels, Banned: d.Banned,
		LastError: d.LastError.Text, LastErrorAt: timeOrNil(d.LastError.Time),
	}
	if l := d.Live; l != nil {
		out.RemoteAddr, out.Epoch, out.ConnectedAt, out.Carrier = l.RemoteAddr, l.Epoch, &l.ConnectedAt, l.Carrier
		out.Waiting, out.WaitingBytes, out.Asked = l.Waiting, l.WaitingBytes, l.OpenRequests
		out.Traffic = &admin.Traffic{FramesIn: l.FramesIn, BytesIn: l.BytesIn, FramesOut: l.FramesOut, BytesOut: l.BytesOut, LastHeard: l.LastRead}
	}
	return out
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// gate is the host's admin.Gate.
type gate struct {
	host *router.Host
	// redact removes secrets from errors; it may be nil.
	redact func(string) string
}

func (g gate) Kick(transport, name, reason string) (admin.Kicked, error) {
	was, transport, err := g.host.Kick(transport, name, reason)
	return admin.Kicked{Device: was.Device, Transport: transport, RemoteAddr: was.RemoteAddr, Epoch: was.Epoch}, err
}

func (g gate) Ban(ctx context.Context, transport string, ban device.Ban) (admin.Ban, error) {
	done, err := g.host.Ban(ctx, transport, ban)
	out := banJSON(done.Transport, done.Ban)
	out.BanOutcome = &admin.BanOutcome{Replaced: done.Replaced, Kicked: done.Kicked, Stored: done.Stored}
	switch {
	case done.Stored:
	case done.StoreErr == nil:
		out.Problem = "the host keeps its state in memory: see [store]"
	case g.redact != nil:
		out.Problem = g.redact(done.StoreErr.Error())
	default:
		out.Problem = done.StoreErr.Error()
	}
	return out, err
}

func (g gate) Unban(ctx context.Context, transport, name string) (admin.Ban, error) {
	was, transport, err := g.host.Unban(ctx, transport, name)
	return banJSON(transport, was), err
}

func (g gate) Bans() []admin.Ban {
	all := g.host.Bans()
	var out []admin.Ban
	for _, transport := range slices.Sorted(maps.Keys(all)) {
		for _, b := range all[transport] {
			out = append(out, banJSON(transport, b))
		}
	}
	return out
}

func banJSON(transport string, b device.Ban) admin.Ban {
	return admin.Ban{Device: b.Device, Transport: transport, Since: b.Since, Until: timeOrNil(b.Until), Reason: b.Reason}
}
