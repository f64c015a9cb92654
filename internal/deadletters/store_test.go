package deadletters

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/testenv"
)

// stores has all kinds of stores. Each function starts the servers that they need, and returns a
// function that makes stores with the same rows.
var stores = map[string]func(t *testing.T) func(t *testing.T) func(host string) *Store{
	"sqlite": func(*testing.T) func(t *testing.T) func(host string) *Store {
		return func(t *testing.T) func(host string) *Store {
			path := filepath.Join(t.TempDir(), "pentrough.db-poison")
			return func(host string) *Store { return closing(t, NewSQLite(path, host)) }
		}
	},
	"postgres": func(t *testing.T) func(t *testing.T) func(host string) *Store {
		server := testenv.NewPostgres(t)
		return func(t *testing.T) func(host string) *Store {
			if err := execute(t, NewPostgres(server.URL, ""), `DROP TABLE IF EXISTS pentrough_poison, pentrough_poison_schema`); err != nil {
				t.Fatal(err)
			}
			return func(host string) *Store { return closing(t, NewPostgres(server.URL, host)) }
		}
	},
}

func closing(t *testing.T, s *Store) *Store {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// execute runs statements directly in the database.
func execute(t *testing.T, s *Store, statements string) error {
	db, err := s.connect(operating)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(t.Context(), s.dialect.statement(statements))
	return errors.Join(err, db.Close())
}

// contract has the tests that every store must pass. Each function gets stores that share their
// rows.
var contract = map[string]func(t *testing.T, open func(host string) *Store){
	"ARowIsAllOfItsLetter":           aRowIsAllOfItsLetter,
	"ALetterThatComesAgainHasOneRow": aLetterThatComesAgainHasOneRow,
	"Filters":                        filters,
	"ManyRowsAreReadByPages":         manyRowsAreReadByPages,
	"Limits":                         limits,
	"AStoreOfAnotherVersion":         aStoreOfAnotherVersion,
	"AClosedStore":                   aClosedStore,
	"AReplayIsOneOperators":          aReplayIsOneOperators,
	"WhatMayBeDropped":               whatMayBeDropped,
	"TwoOperatorsAtOnce":             twoOperatorsAtOnce,
}

func TestStoresKeepTheContract(t *testing.T) {
	for name, start := range stores {
		t.Run(name, func(t *testing.T) {
			build := start(t)
			for name, test := range contract {
				t.Run(name, func(t *testing.T) { test(t, build(t)) })
			}
		})
	}
}

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// roomy has limits that no test reaches.
var roomy = handlers.DeadLetterLimits{Keeper: "dead", Rows: 1000, Age: 100 * 365 * 24 * time.Hour}

func letter(n int) handlers.DeadLetter {
	return handlers.DeadLetter{
		Time: noon.Add(time.Duration(n) * time.Second), Cause: fmt.Sprintf("reading field %d: no number", n), Kind: "permanent", Pipeline: "commands",
		Handler: "deliver", Attempts: n, MessageID: fmt.Sprint("id-", n), From: "broker:commands", Exchange: "device.commands", RoutingKey: "a.b",
		Metadata: map[string]string{"message_id": fmt.Sprint("id-", n), "header.n": "5"}, Headers: []byte(`[["n","int32","5"]]`),
		Body: fmt.Appendf(nil, "body %d", n),
	}
}

func keep(t *testing.T, s *Store, limits handlers.DeadLetterLimits, letters ...handlers.DeadLetter) handlers.DeadLettersRemoved {
	t.Helper()
	removed, err := s.Keep(t.Context(), letters, limits)
	if err != nil {
		t.Fatal(err)
	}
	return removed
}

func operate(t *testing.T, s *Store, name string) *Operator {
	t.Helper()
	o, err := s.Operate(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

// ids returns the ids of the messages that a filter chooses.
func ids(t *testing.T, o *Operator, f Filter, order Order) []string {
	t.Helper()
	var all []string
	for r, err := range o.Rows(t.Context(), f, order) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r.MessageID)
	}
	n, err := o.Count(t.Context(), f)
	if err != nil || int(n) != len(all) {
		t.Errorf("counted %d of %d, %v", n, len(all), err)
	}
	return all
}

// number returns the number of a message's row.
func number(t *testing.T, o *Operator, id string) int64 {
	t.Helper()
	for r, err := range o.Rows(t.Context(), Filter{ID: &id}, OldestFirst) {
		if err != nil {
			t.Fatal(err)
		}
		return r.Number
	}
	t.Fatalf("there is no row of %s", id)
	return 0
}

func aRowIsAllOfItsLetter(t *testing.T, open func(string) *Store) {
	odd := handlers.DeadLetter{
		Time: noon, MessageID: "\xff\x00id", Cause: "a \x00 byte", Exchange: "\xfe", RoutingKey: "\x00", Pipeline: "p",
		Metadata: map[string]string{"header.\xff": "\xfd\x00", "header.b": "ü"}, Body: []byte{0, 0xff, '\n'},
	}
	empty := handlers.DeadLetter{MessageID: "empty"}
	s := open("h")
	keep(t, s, roomy, letter(1), odd, empty)
	o := operate(t, s, "me")
	var got []handlers.DeadLetter
	for r, err := range o.Rows(t.Context(), Filter{}, OldestFirst) {
		if err != nil {
			t.Fatal(err)
		}
		full, err := o.Row(t.Context(), r.Number)
		if err != nil {
			t.Fatal(err)
		}
		if full.State != New || full.Keeper != "dead" || full.Host != "h" || time.Since(full.Kept).Abs() > time.Hour || full.Size != int64(len(full.Body)) {
			t.Errorf("row %+v", full)
		}
		got = append(got, full.DeadLetter)
	}
	odd.Cause = "a \ufffd byte"
	if len(got) == 3 && time.Since(got[2].Time).Abs() < time.Hour {
		empty.Time = got[2].Time // it was stored without a time of the failure
	}
	if diff := cmp.Diff([]handlers.DeadLetter{letter(1), odd, empty}, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if _, err := o.Row(t.Context(), 999); !errors.Is(err, ErrNoRow) {
		t.Errorf("a row that isn't there: %v", err)
	}
}

func aLetterThatComesAgainHasOneRow(t *testing.T, open func(string) *Store) {
	first := open("one")
	keep(t, first, roomy, letter(1), letter(1))
	keep(t, first, roomy, letter(1))
	keep(t, open("two"), roomy, letter(1))
	o := operate(t, first, "me")

	// A dropped or replayed row keeps its state.
	c, err := o.Claim(t.Context(), number(t, o, "id-1"), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Replayed(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	keep(t, first, roomy, letter(1))
	if got := ids(t, o, Filter{}, OldestFirst); len(got) != 1 {
		t.Errorf("rows of %q", got)
	}

	// A message that fails again is another letter, and so is one with another body.
	again, other := letter(1), letter(1)
	again.Time = again.Time.Add(time.Nanosecond)
	other.Body = []byte("other")
	keep(t, first, roomy, again, other)
	if got := ids(t, o, Filter{States: []State{New}}, OldestFirst); len(got) != 2 {
		t.Errorf("new rows of %q", got)
	}
	// Messages that a broker dead-lettered differ by the broker's header.
	once, twice := handlers.DeadLetter{MessageID: "x"}, handlers.DeadLetter{MessageID: "x"}
	once.Metadata, twice.Metadata = map[string]string{"header.x-death": "count 1"}, map[string]string{"header.x-death": "count 2"}
	keep(t, first, roomy, once, twice, once)
	x := "x"
	if got := ids(t, o, Filter{ID: &x}, OldestFirst); len(got) != 2 {
		t.Errorf("rows of %q", got)
	}
}

func filters(t *testing.T, open func(string) *Store) {
	s := open("h")
	other := letter(4)
	other.Pipeline, other.Cause = "status", "100% wrong_"
	keep(t, s, roomy, letter(1), letter(2), letter(3), other)
	o := operate(t, s, "me")
	row, err := o.Row(t.Context(), number(t, o, "id-2"))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := o.Drop(t.Context(), []Row{row, row}); n != 1 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
	str := func(s string) *string { return &s }
	for _, c := range []struct {
		filter Filter
		want   []string
	}{
		{Filter{}, []string{"id-4", "id-3", "id-2", "id-1"}},
		{Filter{States: []State{New}}, []string{"id-4", "id-3", "id-1"}},
		{Filter{States: []State{Dropped, Replayed}}, []string{"id-2"}},
		{Filter{Pipeline: str("commands"), States: []State{New}}, []string{"id-3", "id-1"}},
		{Filter{Pipeline: str("")}, nil},
		{Filter{ID: str("id-1' OR 1 = 1 --")}, nil},
		{Filter{ID: str("\x00")}, nil},
		{Filter{Cause: "field 3"}, []string{"id-3"}},
		{Filter{Cause: "0% wrong_"}, []string{"id-4"}},
		{Filter{Cause: "%"}, []string{"id-4"}},
		{Filter{Last: row.Number, States: []State{New}}, []string{"id-1"}},
		{Filter{Since: noon.Add(3 * time.Second)}, []string{"id-4", "id-3"}},
	} {
		if diff := cmp.Diff(c.want, ids(t, o, c.filter, NewestFirst)); diff != "" {
			t.Errorf("%+v: %s", c.filter, diff)
		}
	}
}

func manyRowsAreReadByPages(t *testing.T, open func(string) *Store) {
	const pageRows = 50
	s := open("h")
	var letters []handlers.DeadLetter
	for n := range pageRows*2 + 1 {
		letters = append(letters, letter(n+1))
	}
	limits := roomy
	limits.Rows = len(letters)
	keep(t, s, limits, letters...)
	o := operate(t, s, "me")
	o.pageRows = pageRows
	for _, order := range []Order{NewestFirst, OldestFirst} {
		seen := 0
		for r, err := range o.Rows(t.Context(), Filter{States: []State{New}}, order) {
			if err != nil {
				t.Fatal(err)
			}
			want := seen + 1
			if order == NewestFirst {
				want = len(letters) - seen
			}
			if r.MessageID != fmt.Sprint("id-", want) {
				t.Fatalf("row %d is of %s", seen, r.MessageID)
			}
			// The row is changed after it was read.
			if order == OldestFirst {
				if n, err := o.Drop(t.Context(), []Row{r}); n != 1 || err != nil {
					t.Fatal(n, err)
				}
			}
			if seen++; order == OldestFirst && seen == pageRows+10 {
				break
			}
		}
	}
	if n, err := o.Count(t.Context(), Filter{States: []State{Dropped}}); n != pageRows+10 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
}

func limits(t *testing.T, open func(string) *Store) {
	s := open("h")
	few := handlers.DeadLetterLimits{Keeper: "dead", Rows: 3, Age: time.Hour}
	others := few
	others.Keeper = "others"
	elsewhere := letter(0)
	keep(t, s, others, elsewhere)
	if removed := keep(t, s, few, letter(1), letter(2), letter(3)); removed != (handlers.DeadLettersRemoved{}) {
		t.Errorf("removed %+v", removed)
	}
	o := operate(t, s, "me")
	claimed, err := o.Claim(t.Context(), number(t, o, "id-1"), false)
	if err != nil {
		t.Fatal(err)
	}
	third, err := o.Row(t.Context(), number(t, o, "id-3"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Drop(t.Context(), []Row{third}); err != nil {
		t.Fatal(err)
	}
	// Settled rows are removed first, then the oldest ones, but no row that is being replayed.
	if removed := keep(t, s, few, letter(4)); removed != (handlers.DeadLettersRemoved{Settled: 1}) {
		t.Errorf("removed %+v", removed)
	}
	if removed := keep(t, s, few, letter(5)); removed != (handlers.DeadLettersRemoved{Open: 1}) {
		t.Errorf("removed %+v", removed)
	}
	if diff := cmp.Diff([]string{"id-0", "id-1", "id-4", "id-5"}, ids(t, o, Filter{}, OldestFirst)); diff != "" {
		t.Error(diff)
	}

	// Rows that are too old are removed without a new letter. A row that is being replayed is
	// removed when its replay was interrupted.
	if err := execute(t, s, `UPDATE {table} SET kept = kept - 3600001 WHERE message_id IN ('id-0', 'id-1', 'id-4')`); err != nil {
		t.Fatal(err)
	}
	if removed := keep(t, s, few); removed != (handlers.DeadLettersRemoved{Open: 1}) {
		t.Errorf("removed %+v", removed)
	}
	if err := execute(t, s, `UPDATE {table} SET changed = changed - 60001`); err != nil {
		t.Fatal(err)
	}
	if removed := keep(t, s, few); removed != (handlers.DeadLettersRemoved{Open: 1}) {
		t.Errorf("removed %+v", removed)
	}
	if diff := cmp.Diff([]string{"id-0", "id-5"}, ids(t, o, Filter{}, OldestFirst)); diff != "" {
		t.Error(diff)
	}
	if err := o.Replayed(t.Context(), claimed); !errors.Is(err, ErrLost) {
		t.Errorf("the end of a replay whose row is gone: %v", err)
	}
	// No number is used again.
	keep(t, s, few, letter(6))
	if a, b := number(t, o, "id-5"), number(t, o, "id-6"); a >= b {
		t.Errorf("numbers %d, %d", a, b)
	}
}

func aStoreOfAnotherVersion(t *testing.T, open func(string) *Store) {
	s := open("h")
	if _, err := s.Operate(t.Context(), "me"); err == nil {
		t.Error("an operator made a store")
	}
	keep(t, s, roomy)
	operate(t, s, "me")
	if err := execute(t, s, `INSERT INTO `+s.dialect.Versions+` (version_id, is_applied) VALUES (99, true)`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Operate(t.Context(), "me"); !errors.Is(err, database.ErrSchema) {
		t.Errorf("an operator: %v", err)
	}
	if _, err := open("h").Keep(t.Context(), nil, roomy); !errors.Is(err, database.ErrSchema) {
		t.Errorf("a host: %v", err)
	}
}

func aClosedStore(t *testing.T, open func(string) *Store) {
	s := open("h")
	keep(t, s, roomy, letter(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Keep(t.Context(), nil, roomy); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := open("h").Keep(ended, []handlers.DeadLetter{letter(2)}, roomy); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	o := operate(t, open("h"), "me")
	if diff := cmp.Diff([]string{"id-1"}, ids(t, o, Filter{}, OldestFirst)); diff != "" {
		t.Error(diff)
	}
}
