package device

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestNewNames(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	n := newNewcomers(NameLimit{Rate: 10, Burst: 20, AtStart: 50})
	n.listed = func(device string) bool { return device == "listed" }
	next := 0
	come := func(names int) (admitted int) {
		for range names {
			next++
			if n.admitName(fmt.Sprint("d", next), now) {
				admitted++
			}
		}
		return admitted
	}
	if got := come(100); got != 70 {
		t.Errorf("%d of 100 come at the start; want those of at_start and burst", got)
	}
	for _, name := range []string{"d1", "d70", "listed"} {
		if !n.admitName(name, now) {
			t.Errorf("%s counts as new", name)
		}
	}
	if n.admitName("d71", now) {
		t.Error("a name that was refused counts as known")
	}
	now = now.Add(time.Second)
	if got := come(100); got != 10 {
		t.Errorf("%d of 100 come a second later; want the rate", got)
	}
	now = now.Add(time.Hour)
	if got := come(100); got != 20 {
		t.Errorf("%d of 100 come an hour later; want burst", got)
	}
}

// What is left of the start isn't for those that come much later.
func TestNewNamesAfterTheStart(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	n := newNewcomers(NameLimit{Rate: 10, Burst: 20, AtStart: 50})
	if !n.admitName("first", now.Add(-startPeriod)) {
		t.Error("the first name is refused")
	}
	admitted := 0
	for i := range 100 {
		if n.admitName(fmt.Sprint(i), now) {
			admitted++
		}
	}
	if admitted != 20 {
		t.Errorf("%d of 100 come; want burst", admitted)
	}
}

// A fleet that reconnects after a restart comes in at once, and again whenever it reconnects.
func TestFleetIsNotHeldUp(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	n := newNewcomers(NameLimit{Rate: 100, Burst: 1000, AtStart: 50_000})
	for range 3 {
		for i := range 20_000 {
			if !n.admitName(fmt.Sprint(i), now) {
				t.Fatalf("device %d is refused", i)
			}
		}
		now = now.Add(time.Hour)
	}
}

// The number of remembered names is bounded, and devices that reconnect stay remembered.
func TestNamesAreForgotten(t *testing.T) {
	now := time.Now()
	n := newNewcomers(NameLimit{Rate: 1, Burst: 1, AtStart: 1000})
	n.maxSet = 10
	for i := range 1000 {
		n.admitName(fmt.Sprint(i), now)
		n.admitName("regular", now)
		if kept := len(n.newer) + len(n.older); kept > 20 {
			t.Fatalf("%d names are kept", kept)
		}
	}
	n.bucket.AllowN(now, 1)
	if !n.admitName("regular", now) || n.admitName("0", now) {
		t.Error("the wrong name is forgotten")
	}
}

func TestConnectRefusesNewNames(t *testing.T) {
	r := testRegistry(t, func(o *Options) { o.NewNames = NameLimit{Rate: 1, Burst: 2} })
	r.SetListed(func(device string) bool { return device == "listed" }, false)
	connect(t, r, "a", newPipe(9))
	session := connect(t, r, "b", newPipe(9))
	_, err := r.Connect(t.Context(), "c", "", newPipe(9), nil)
	if want := `too many new names of devices, such as "c"; new_names allows 1 a second, or list the devices in the inventory`; !errors.Is(err, ErrNewName) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	connect(t, r, "listed", newPipe(9))
	connect(t, r, "a", newPipe(9)) // takes over
	session.End(ClientClosed)
	connect(t, r, "b", newPipe(9)) // comes back
}
