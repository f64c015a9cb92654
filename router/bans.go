package router

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/transports/device"
)

// An operator can kick and ban devices. This file passes both to the transports, which enforce the
// bans. The host also writes the bans to its store, if it has one, and loads them at its start.
//
// A ban is in force at once, even if the store can't be used. When an operator ends a ban, the
// host first removes it from the store. So the ban never returns after a restart.

// BanStore stores the bans of a host, so that they survive the end of the process. One goroutine
// at a time calls it.
type BanStore interface {
	// Load returns the bans by the names of their transports.
	Load(ctx context.Context) (map[string][]device.Ban, error)
	// Put stores a ban. It replaces an older one of the device.
	Put(ctx context.Context, transport string, b device.Ban) error
	// Remove removes the ban of a device, if the store has one.
	Remove(ctx context.Context, transport, device string) error
}

const (
	// banTimeout bounds one call of the store.
	banTimeout = 5 * time.Second
	// firstBanPause and lastBanPause limit the pauses between attempts to load the bans.
	firstBanPause = time.Second
	lastBanPause  = time.Minute
)

// banning has the host's store of bans, and what the host knows about it.
type banning struct {
	store  BanStore // nil without a store
	outage *outage.Outage
	stop   context.CancelFunc // ends the attempts to load
	tries  sync.WaitGroup

	mu     sync.Mutex // locked while the store is used
	loaded bool
}

// Banned says what a call of Ban did.
type Banned struct {
	device.Banned
	// Transport is the name of the device's transport.
	Transport string
	// Stored says that the ban survives the end of the process. Otherwise StoreErr says why it
	// doesn't. StoreErr is nil if the host has no store.
	Stored   bool
	StoreErr error
}

// chooseTransport considers the transports for which find returns true. It returns the one with
// the name, and what find returned for it. name may be empty if there is only one such transport.
// act names the act of the caller, for the error.
func chooseTransport[T any](h *Host, name, act string, find func(*transport) (T, bool)) (chosen *transport, found T, err error) {
	var names []string
	for _, t := range h.ordered {
		if able, ok := find(t); ok {
			names = append(names, t.name)
			if name == "" || name == t.name {
				chosen, found = t, able
			}
		}
	}
	switch {
	case len(names) == 0:
		err = fmt.Errorf("no transport of the host can %s its devices", act)
	case chosen == nil:
		err = fmt.Errorf("no transport with devices is named %q; there are: %s", name, strings.Join(names, ", "))
	case name == "" && len(names) > 1:
		err = fmt.Errorf("several transports have devices; name one of %s", strings.Join(names, ", "))
	}
	return chosen, found, err
}

func gatekeeperOf(t *transport) (device.Gatekeeper, bool) {
	p, ok := t.Transport.(device.Provider)
	if !ok {
		return nil, false
	}
	g, ok := p.Devices().(device.Gatekeeper)
	return g, ok
}

// Kick ends the session of a device, as [device.Gatekeeper] does. It returns the session and the
// name of its transport. name is the transport's name, and may be empty if only one has devices.
func (h *Host) Kick(name, deviceName, reason string) (was device.Live, transport string, err error) {
	t, gate, err := chooseTransport(h, name, "kick", gatekeeperOf)
	if err != nil {
		return was, "", err
	}
	if was, err = gate.Kick(deviceName, reason); err == nil {
		h.log.Info("an operator has disconnected a device", "transport", t.name, "device", was.Device, "epoch", was.Epoch, "reason", reason)
	}
	return was, t.name, err
}

// Ban bans a device, as [device.Gatekeeper] does, and stores the ban. name is the transport's
// name, and may be empty if only one has devices.
func (h *Host) Ban(ctx context.Context, name string, ban device.Ban) (Banned, error) {
	t, gate, err := chooseTransport(h, name, "ban", gatekeeperOf)
	if err != nil {
		return Banned{}, err
	}
	b := &h.banning
	b.mu.Lock()
	defer b.mu.Unlock()
	banned, err := gate.Ban(ban)
	if err != nil {
		return Banned{}, err
	}
	done := Banned{Banned: banned, Transport: t.name}
	if b.store != nil {
		ctx, cancel := context.WithTimeout(ctx, banTimeout)
		defer cancel()
		done.StoreErr = b.store.Put(ctx, t.name, banned.Ban)
		done.Stored = done.StoreErr == nil
	}
	h.log.Info("an operator has banned a device", "transport", t.name, "device", banned.Device, "until", banned.Until, "reason", banned.Reason, "stored", done.Stored)
	return done, nil
}

// Unban ends the ban of a device and returns it, with the name of its transport. name is the
// transport's name, and may be empty if only one has devices.
func (h *Host) Unban(ctx context.Context, name, deviceName string) (was device.Ban, transport string, err error) {
	t, gate, err := chooseTransport(h, name, "ban", gatekeeperOf)
	if err != nil {
		return was, "", err
	}
	devices := t.Transport.(device.Provider).Devices()
	canonical, err := devices.Canonical(devices.Base(deviceName))
	if err != nil {
		return was, "", err
	}
	b := &h.banning
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.store != nil {
		ctx, cancel := context.WithTimeout(ctx, banTimeout)
		defer cancel()
		if err := h.loadBans(ctx); err != nil {
			return was, "", err
		}
		if err := b.store.Remove(ctx, t.name, canonical); err != nil {
			return was, "", fmt.Errorf("removing the ban from the store: %w", err)
		}
	}
	if was, err = gate.Unban(canonical); err == nil {
		h.log.Info("an operator has ended the ban of a device", "transport", t.name, "device", was.Device)
	}
	return was, t.name, err
}

// Bans returns the bans in force by the names of their transports.
func (h *Host) Bans() map[string][]device.Ban {
	all := map[string][]device.Ban{}
	for _, t := range h.ordered {
		if gate, ok := gatekeeperOf(t); ok {
			all[t.name] = gate.Bans()
		}
	}
	return all
}

// loadBans loads the stored bans if they aren't loaded yet. banning.mu is locked.
func (h *Host) loadBans(ctx context.Context) error {
	b := &h.banning
	if b.loaded {
		return nil
	}
	stored, err := b.store.Load(ctx)
	if err != nil {
		return fmt.Errorf("loading the bans of devices: %w", err)
	}
	b.loaded = true
	for _, t := range h.ordered {
		gate, ok := gatekeeperOf(t)
		if !ok {
			continue
		}
		newer := map[string]bool{}
		for _, ban := range gate.Bans() {
			newer[ban.Device] = true
		}
		for _, ban := range stored[t.name] {
			if newer[ban.Device] {
				continue
			}
			if _, err := gate.Ban(ban); err != nil {
				h.log.Warn("a stored ban can't be used", "transport", t.name, "device", ban.Device, "err", err)
			}
		}
	}
	return nil
}

// startBans loads the stored bans. If that fails, it tries again until it succeeds or closeBans is
// called. Until then, banned devices can connect. When the bans are loaded, they end such
// sessions.
func (h *Host) startBans(ctx context.Context) {
	b := &h.banning
	if b.store == nil {
		return
	}
	try := func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, banTimeout)
		defer cancel()
		b.mu.Lock()
		err := h.loadBans(ctx)
		b.mu.Unlock()
		b.outage.Report(err)
		return err == nil
	}
	if try(ctx) {
		return
	}
	life, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.tries.Go(func() {
		for pauses := backoff.New(firstBanPause, lastBanPause); backoff.Sleep(life, pauses.NextBackOff()) && !try(life); {
		}
	})
}

// closeBans ends the attempts to load the bans.
func (h *Host) closeBans() {
	if h.banning.stop != nil {
		h.banning.stop()
	}
	h.banning.tries.Wait()
}
