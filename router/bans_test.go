package router

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// gated is a transport of devices that an operator can disconnect.
type gated struct{ *fakeGateway }

func (g gated) New(env transports.Env) (transports.Transport, error) {
	_, err := g.fakeGateway.New(env)
	return g, err
}

func (g gated) Devices() device.Devices { return g.Registry }

// fakeBans is a store of bans that can fail.
type fakeBans struct {
	err  error
	bans map[string]device.Ban // by "transport device"
}

func (f *fakeBans) Load(context.Context) (map[string][]device.Ban, error) {
	all := map[string][]device.Ban{}
	for _, key := range slices.Sorted(maps.Keys(f.bans)) {
		transport, _, _ := strings.Cut(key, " ")
		all[transport] = append(all[transport], f.bans[key])
	}
	return all, f.err
}

func (f *fakeBans) Put(_ context.Context, transport string, b device.Ban) error {
	if f.err == nil {
		f.bans[transport+" "+b.Device] = b
	}
	return f.err
}

func (f *fakeBans) Remove(_ context.Context, transport, device string) error {
	if f.err == nil {
		delete(f.bans, transport+" "+device)
	}
	return f.err
}

// startGated starts a host with two transports of devices.
func startGated(t *testing.T, store BanStore) (h *Host, north, south gated) {
	t.Helper()
	north, south = gated{&fakeGateway{}}, gated{&fakeGateway{}}
	h, err := New(Config{Name: "host", Bans: store, Transports: []Transport{{Name: "north", Config: north}, {Name: "south", Config: south}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h, north, south
}

// tryConnect makes a session and returns the error.
func (g gated) tryConnect(t *testing.T, name string) (*device.Session, error) {
	t.Helper()
	return g.Connect(t.Context(), name, "192.0.2.1:1000", &wire{gateway: g.fakeGateway, device: name}, nil)
}

func TestBansAreLoadedAndStored(t *testing.T) {
	store := &fakeBans{bans: map[string]device.Ban{"north d": {Device: "d", Reason: "stolen"}, "gone d": {Device: "d"}, "north \x00": {Device: "\x00", Reason: "a\nb"}}}
	h, north, south := startGated(t, store)
	if _, err := north.tryConnect(t, "d"); !errors.Is(err, device.ErrBanned) {
		t.Errorf("a device with a stored ban connects: %v", err)
	}
	s, err := south.tryConnect(t, "d")
	if err != nil {
		t.Fatalf("a device of another transport: %v", err)
	}
	if _, err := h.Ban(t.Context(), "", device.Ban{Device: "d"}); err == nil || !strings.Contains(err.Error(), "name one of north, south") {
		t.Errorf("without a transport: %v", err)
	}
	if _, _, err := h.Kick("west", "d", ""); err == nil || !strings.Contains(err.Error(), `"west"; there are: north, south`) {
		t.Errorf("with an unknown transport: %v", err)
	}
	banned, err := h.Ban(t.Context(), "south", device.Ban{Device: "d"})
	if err != nil || !banned.Kicked || !banned.Stored || s.Reason() != device.Kicked || store.bans["south d"].Device != "d" {
		t.Errorf("%+v, %v; the session's reason %q; stored %v", banned, err, s.Reason(), store.bans)
	}
	if b, transport, err := h.Unban(t.Context(), "north", "d"); err != nil || transport != "north" || b.Reason != "stolen" || store.bans["north d"].Device != "" {
		t.Errorf("%+v of %s, %v; stored %v", b, transport, err, store.bans)
	}
	if _, err := north.tryConnect(t, "d"); err != nil {
		t.Errorf("after the end of the ban: %v", err)
	}
	if all := h.Bans(); len(all["north"]) != 0 || len(all["south"]) != 1 {
		t.Errorf("the bans: %v", all)
	}
}

// While the store can't be used, bans work until the host ends. Those that are stored end sessions
// as soon as they are loaded.
func TestTheStoreOfBansFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("the disk is gone")
		store := &fakeBans{err: down, bans: map[string]device.Ban{"north d": {Device: "d", Reason: "old"}, "north e": {Device: "e"}}}
		h, north, _ := startGated(t, store)
		healthy := func() error {
			for _, part := range h.Health() {
				if part.Name == "store" && part.Part == "bans" {
					return part.Err
				}
			}
			return errors.New("there is no such part")
		}
		if err := healthy(); !errors.Is(err, down) {
			t.Errorf("the health: %v", err)
		}
		s, err := north.tryConnect(t, "e")
		if err != nil {
			t.Fatal(err)
		}
		banned, err := h.Ban(t.Context(), "north", device.Ban{Device: "d", Reason: "new"})
		if err != nil || banned.Stored || !errors.Is(banned.StoreErr, down) {
			t.Errorf("%+v, %v", banned, err)
		}
		if _, _, err := h.Unban(t.Context(), "north", "d"); !errors.Is(err, down) {
			t.Errorf("a ban that would return after a restart: %v", err)
		}
		h.banning.mu.Lock()
		store.err = nil
		h.banning.mu.Unlock()
		time.Sleep(2 * lastBanPause)
		synctest.Wait()
		if err := healthy(); err != nil || s.Reason() != device.Kicked {
			t.Errorf("the health: %v; the session's reason: %q", err, s.Reason())
		}
		if all := h.Bans()["north"]; len(all) != 2 || all[0].Reason != "new" {
			t.Errorf("the bans: %+v", all)
		}
	})
}

// A stop ends the attempts to load the bans.
func TestAHostStopsWithoutItsBans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		startGated(t, &fakeBans{err: errors.New("the disk is gone")})
	})
}

func TestBansInMemory(t *testing.T) {
	h, north, _ := startGated(t, nil)
	banned, err := h.Ban(t.Context(), "north", device.Ban{Device: "d"})
	if err != nil || banned.Stored || banned.StoreErr != nil {
		t.Errorf("%+v, %v", banned, err)
	}
	if _, err := north.tryConnect(t, "d"); !errors.Is(err, device.ErrBanned) {
		t.Errorf("connecting: %v", err)
	}
	if _, _, err := h.Unban(t.Context(), "north", "d"); err != nil {
		t.Error(err)
	}
}
