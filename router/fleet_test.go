package router

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pentrough/pentrough/transports/device"
)

// fakeInventory lists the same devices for every transport, with their labels.
type fakeInventory map[string]map[string]string

func (f fakeInventory) View(string, func(string) (string, error)) (device.Inventory, error) {
	return f, nil
}

func (f fakeInventory) Known(name string) bool               { _, ok := f[name]; return ok }
func (f fakeInventory) Labels(name string) map[string]string { return f[name] }
func (f fakeInventory) Select(map[string]string) []string    { return slices.Sorted(maps.Keys(f)) }
func (f fakeInventory) Tokens(string) []device.TokenHash     { return nil }
func (f fakeInventory) Watch(func([]string))                 {}

func TestFleet(t *testing.T) {
	north, south := gated{&fakeGateway{}}, gated{&fakeGateway{}}
	h, err := New(Config{
		Name: "host", Inventory: fakeInventory{"a": {"site": "1"}, "b": nil},
		Transports: []Transport{{Name: "south", Config: south}, {Name: "north", Config: north}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for g, name := range map[gated]string{north: "x", south: "b"} {
		if _, err := g.tryConnect(t, name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "x", "gone"} {
		north.NoteError(name, "bad checksum")
		if _, err := h.Ban(t.Context(), "south", device.Ban{Device: name}); err != nil {
			t.Fatal(err)
		}
	}
	bad := device.Failure{Text: "bad checksum"}
	want := []FleetDevice{
		{Transport: "north", Device: "a", Known: true, Labels: map[string]string{"site": "1"}, LastError: bad},
		{Transport: "north", Device: "b", Known: true},
		{Transport: "north", Device: "x", Live: &device.Live{Device: "x", RemoteAddr: "192.0.2.1:1000"}, LastError: bad},
		{Transport: "south", Device: "a", Known: true, Labels: map[string]string{"site": "1"}, Banned: true},
		{Transport: "south", Device: "b", Known: true, Live: &device.Live{Device: "b", RemoteAddr: "192.0.2.1:1000"}},
	}
	times := cmp.Options{cmpopts.IgnoreFields(device.Live{}, "Epoch", "ConnectedAt", "LastRead"), cmpopts.IgnoreFields(device.Failure{}, "Time")}
	if diff := cmp.Diff(want, h.Fleet(), times); diff != "" {
		t.Error(diff)
	}
}
