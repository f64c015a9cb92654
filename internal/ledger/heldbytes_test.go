package ledger

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

// hold has a ledger hold a payload, and returns the key and the error.
func hold(t *testing.T, l *Ledger, id, payload string) (middleware.LedgerKey, error) {
	t.Helper()
	key := middleware.LedgerKey{Pipeline: "p", ID: id, Device: "d"}
	if _, err := l.Reserve(t.Context(), key, middleware.Digest{1}, middleware.Origin{}); err != nil {
		t.Fatal(err)
	}
	err := l.Hold(key, &handlers.Held{UUID: "u", Awaits: "d", Payload: []byte(payload)}, 1000, 1000, nil)
	if err != nil {
		l.Release(key)
	}
	return key, err
}

// disown has the ledger give up a message that it holds.
func disown(t *testing.T, l *Ledger, key middleware.LedgerKey) {
	t.Helper()
	if _, err := l.Resume(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	l.Release(key)
	l.Disown(key)
}

func TestHeldBytesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	payload := strings.Repeat("x", 998) // with UUID and Awaits 1,000 bytes
	l := open(t, NewSQLite(path, "gateway-1"))
	l.LimitHeld(transports.NewBudget(10_000))
	var keys []middleware.LedgerKey
	for i := range 12 {
		key, err := hold(t, l, strconv.Itoa(i), payload)
		if full := i >= 10; errors.Is(err, handlers.ErrHoldFull) != full || !full && err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if err == nil {
			keys = append(keys, key)
		}
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	// Messages that were held before the restart stay held, even if they exceed the new budget.
	l = open(t, NewSQLite(path, "gateway-1"))
	b := transports.NewBudget(3000)
	l.LimitHeld(b)
	if all, err := l.Owned(t.Context(), "p"); err != nil || len(all) != len(keys) || b.Used() != 10_000 {
		t.Fatalf("%d messages of %d bytes are held, %v", len(all), b.Used(), err)
	}
	for i, key := range keys {
		_, err := hold(t, l, "new", payload)
		if !errors.Is(err, handlers.ErrHoldFull) {
			t.Fatalf("with %d messages gone: %v", i, err)
		}
		if disown(t, l, key); b.Used() == 2000 {
			break
		}
	}
	if _, err := hold(t, l, "new", payload); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestWhiteSpaceOfHeldCommandsIsNotKept(t *testing.T) {
	space := strings.Repeat(" \n\t", 100_000)
	small := `{"device":"d","cmd":"a \" b"}`
	for what, c := range map[string]struct{ payload, kept string }{
		"white space between tokens": {space + `{"device":` + space + `"d","cmd":"a \" b"}` + space, small},
		"in a string":                {`{"cmd":"` + strings.Repeat(" ", 1000) + `"}`, `{"cmd":"` + strings.Repeat(" ", 1000) + `"}`},
		"a little":                   {`{ "cmd" : "a" }`, `{ "cmd" : "a" }`},
		"no JSON":                    {"x" + space, "x" + space},
		"none":                       {small, small},
	} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		l := open(t, NewSQLite(path, "gateway-1"))
		if _, err := hold(t, l, "id", c.payload); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for range 2 { // before and after a restart
			all, err := l.Owned(t.Context(), "p")
			if err != nil || len(all) != 1 || string(all[0].Payload) != c.kept {
				t.Fatalf("%s: %d are held, %v", what, len(all), err)
			}
			if room := cap(all[0].Payload); room > 2*len(c.kept) {
				t.Errorf("%s: %d bytes are kept for %d", what, room, len(c.kept))
			}
			if err := l.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			l = open(t, NewSQLite(path, "gateway-1"))
		}
	}
	// A store may have it as it came, from an earlier version.
	message, err := appendHeld(nil, &handlers.Held{UUID: "u", Awaits: "d", Payload: []byte(small + space)})
	if err != nil {
		t.Fatal(err)
	}
	r := Row{State: Held}
	if err := r.decode(make([]byte, len(r.Digest)), parts{message: message}); err != nil || string(r.Message.Payload) != small {
		t.Errorf("read as %d bytes, %v", len(r.Message.Payload), err)
	}
}
