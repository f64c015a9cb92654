package deliver

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports/device"
)

// inventoried returns a deliver with an inventory that lists "known". The devices "known" and
// "away" are offline.
func inventoried(t *testing.T) (handlers.Handler, *handlertest.Host, *handlertest.Devices) {
	host, devices := newHost(t)
	host.Inventory("devices").List(map[string]map[string]string{"known": nil})
	devices.EpochFunc = func(name string) uint64 {
		if name == "known" || name == "away" {
			return 0
		}
		return 7
	}
	c := defaults
	c.Devices = "devices"
	built := host.Build(&c)
	return built, host, devices
}

func TestUnknownDevice(t *testing.T) {
	h, _, devices := inventoried(t)
	for name, want := range map[string]device.State{
		"away":        device.StateUnknownDevice,
		"::ffff:away": device.StateUnknownDevice,
		"known":       device.StateOffline,
		"stranger":    device.StateSent, // it is connected
		"?":           device.StateRejected,
	} {
		out, err := handlertest.Handle(t.Context(), h, newMessage("1", `{"device":"`+name+`","cmd":"x"}`))
		if r := only(t, out, err); r.State != want {
			t.Errorf("%s: %+v", name, r)
		}
	}
	// The device goes offline between the check and the write, and while the command waits.
	devices.EpochFunc = nil
	out, err := handlertest.Handle(t.Context(), h, newMessage("1", `{"device":"away","cmd":"x"}`))
	if r := only(t, out, err); r.State != device.StateUnknownDevice {
		t.Errorf("%+v", r)
	}
	devices.EnqueueFunc = func(string, []byte, device.EnqueueOptions) (device.Write, error) {
		return handlertest.Ended{Fate: device.Offline, Detail: "gone"}, nil
	}
	for name, want := range map[string]device.State{"stranger": device.StateUnknownDevice, "known": device.StateOffline} {
		out, err := handlertest.Handle(t.Context(), h, newMessage("1", `{"device":"`+name+`","cmd":"x"}`))
		if r := only(t, out, err); r.State != want {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// The held commands of a device that leaves the inventory are released, so that they end.
func TestWhoLeavesTheInventoryIsReady(t *testing.T) {
	h, host, _ := inventoried(t)
	holder := h.(handlers.Holder)
	var resumed []string
	holder.Watch(func(name string) { resumed = append(resumed, name) })
	if holder.Ready("known") {
		t.Error("an offline device is ready")
	}
	host.Inventory("devices").List(map[string]map[string]string{"other": nil})
	if diff := cmp.Diff([]string{"known"}, resumed); diff != "" || !holder.Ready("known") {
		t.Error(diff)
	}
}

// The result of a group's command names the group, however it ends.
func TestGroupOfAResult(t *testing.T) {
	h, _, _ := inventoried(t)
	for body, want := range map[string]device.State{
		`{"id":"i","device":"d","cmd":"x","group":"north"}`:       device.StateSent,
		`{"id":"i","device":"away","cmd":"x","group":"north"}`:    device.StateUnknownDevice,
		`{"id":"i","device":"d","cmd":"x\n","group":"north"}`:     device.StateRejected,
		`{"id":"i","device":"d","group":"north","what":"isthis"}`: device.StateRejected,
	} {
		out, err := handlertest.Handle(t.Context(), h, newMessage("1", body))
		if r := only(t, out, err); r.State != want || r.Group != "north" || r.ID != "i" {
			t.Errorf("%s: %+v", body, r)
		}
	}
	msg := newMessage("1", `{"id":"i","device":"d","cmd":"x","group":"north"}`)
	out, err := h.(handlers.Refuser).Refuse(t.Context(), msg, handlers.ReasonIDReused)
	if r := only(t, out, err); r.State != device.StateRejected || r.Group != "north" {
		t.Errorf("%+v", r)
	}
}
