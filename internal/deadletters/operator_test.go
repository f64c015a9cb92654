package deadletters

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pentrough/pentrough/handlers"
)

func aReplayIsOneOperators(t *testing.T, open func(string) *Store) {
	s := open("h")
	keep(t, s, roomy, letter(1))
	ann, bob := operate(t, s, "ann"), operate(t, s, "bob")
	n := number(t, ann, "id-1")
	claim := func(o *Operator, force bool, want error) *Claim {
		t.Helper()
		c, err := o.Claim(t.Context(), n, force)
		if !errors.Is(err, want) {
			t.Fatalf("%s: %v, want %v", o.Name, err, want)
		}
		return c
	}
	backdate := func() {
		t.Helper()
		if err := execute(t, s, `UPDATE {table} SET changed = changed - 60001`); err != nil {
			t.Fatal(err)
		}
	}
	state := func(want State, operator string) {
		t.Helper()
		if r, err := ann.Row(t.Context(), n); err != nil || r.State != want || r.Operator != operator {
			t.Fatalf("%s by %q, %v", r.State, r.Operator, err)
		}
	}

	c := claim(ann, false, nil)
	if string(c.Body) != "body 1" || c.Exchange != "device.commands" {
		t.Errorf("claimed %+v", c)
	}
	for _, force := range []bool{false, true} {
		if _, err := bob.Claim(t.Context(), n, force); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "ann has been replaying it since") {
			t.Errorf("bob, force %t: %v", force, err)
		}
	}
	if err := ann.Release(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	state(New, "ann")

	// Ann is interrupted. Only force claims the row now, and then Ann can't end her claim.
	c = claim(ann, false, nil)
	backdate()
	claim(bob, false, ErrUndecided)
	taken := claim(bob, true, nil)
	for what, end := range map[string]error{"end": ann.Replayed(t.Context(), c), "release": ann.Release(t.Context(), c)} {
		if !errors.Is(end, ErrLost) {
			t.Errorf("ann's %s: %v", what, end)
		}
	}
	state(Replaying, "bob")
	if err := bob.Replayed(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	state(Replayed, "bob")

	// A settled row is replayed only with force. If it can't be sent, it is settled again.
	claim(ann, false, ErrSettled)
	c = claim(ann, true, nil)
	if err := ann.Release(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	state(Replayed, "ann")
	if _, err := ann.Claim(t.Context(), n+100, true); !errors.Is(err, ErrNoRow) {
		t.Errorf("no row: %v", err)
	}
}

func whatMayBeDropped(t *testing.T, open func(string) *Store) {
	s := open("h")
	keep(t, s, roomy, letter(1), letter(2))
	o := operate(t, s, "me")
	read := func(id string) Row {
		t.Helper()
		r, err := o.Row(t.Context(), number(t, o, id))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	one, two := read("id-1"), read("id-2")
	if err := errors.Join(one.Droppable(false), two.Droppable(false)); err != nil {
		t.Error(err)
	}
	c, err := o.Claim(t.Context(), one.Number, false)
	if err != nil {
		t.Fatal(err)
	}
	claimed := read("id-1")
	for _, force := range []bool{false, true} {
		if err := claimed.Droppable(force); !errors.Is(err, ErrTaken) {
			t.Errorf("while it is replayed, force %t: %v", force, err)
		}
	}
	// A row that was read before its replay began isn't dropped.
	if n, err := o.Drop(t.Context(), []Row{one, two}); n != 1 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
	if err := o.Replayed(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	replayed, dropped := read("id-1"), read("id-2")
	if err := replayed.Droppable(false); err != nil {
		t.Error(err)
	}
	if err := dropped.Droppable(false); dropped.State != Dropped || !errors.Is(err, ErrSettled) {
		t.Errorf("%s: %v", dropped.State, err)
	}
}

// Two operators replay all rows at once, while a host adds more. Each row is replayed by one of
// them.
func twoOperatorsAtOnce(t *testing.T, open func(string) *Store) {
	const rows = 60
	s := open("h")
	var letters []handlers.DeadLetter
	for n := range rows / 2 {
		letters = append(letters, letter(n))
	}
	keep(t, s, roomy, letters...)
	var work sync.WaitGroup
	var mu sync.Mutex
	sent := map[string]string{}
	done := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(sent)
	}
	for i := range 2 {
		o := operate(t, open("h"), fmt.Sprint("operator ", i))
		work.Go(func() {
			for done() < rows && !t.Failed() {
				for r, err := range o.Rows(t.Context(), Filter{States: []State{New}}, OldestFirst) {
					if err != nil {
						t.Error(err)
						return
					}
					c, err := o.Claim(t.Context(), r.Number, false)
					if errors.Is(err, ErrTaken) || errors.Is(err, ErrSettled) {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					if by, twice := sent[c.MessageID]; twice {
						t.Errorf("%s was replayed by %s and %s", c.MessageID, by, o.Name)
					}
					sent[c.MessageID] = o.Name
					mu.Unlock()
					if err := o.Replayed(t.Context(), c); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for n := range rows / 2 {
		keep(t, s, roomy, letter(rows/2+n))
	}
	work.Wait()
	o := operate(t, s, "me")
	if n, err := o.Count(t.Context(), Filter{States: []State{Replayed}}); n != rows || err != nil {
		t.Errorf("%d rows were replayed, %v", n, err)
	}
}
