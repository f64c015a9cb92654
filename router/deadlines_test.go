package router

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// first returns the earliest deadline that is set and not removed, whatever else is in the heap.
func TestDeadlines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d deadlines[int]
		model := map[int]time.Time{}
		check := func() (item int, at time.Time) {
			item, at, ok := d.first()
			if ok != (len(model) > 0) {
				t.Fatalf("a first one: %v, of %d", ok, len(model))
			}
			if ok && !model[item].Equal(at) {
				t.Fatalf("%d is due at %v, want %v", item, at, model[item])
			}
			for other, due := range model {
				if due.Before(at) {
					t.Fatalf("%d is first, due at %v, and %d is due at %v", item, at, other, due)
				}
			}
			return item, at
		}
		number := rapid.IntRange(0, 20)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				item, at := number.Draw(t, "item"), time.Unix(int64(number.Draw(t, "at")), 0)
				model[item] = at
				first := d.set(item, at)
				if earliest, _ := check(); first != (earliest == item) {
					t.Fatalf("setting %d says first: %v, and the first is %d", item, first, earliest)
				}
			},
			"set often": func(t *rapid.T) {
				item := number.Draw(t, "item")
				for i := range 600 {
					model[item] = time.Unix(int64(i), 0)
					d.set(item, model[item])
				}
				if most := 2*len(model) + 1000; len(d.heap) > most {
					t.Fatalf("%d places for %d items", len(d.heap), len(model))
				}
			},
			"remove": func(t *rapid.T) {
				item := number.Draw(t, "item")
				delete(model, item)
				d.remove(item)
			},
			"": func(*rapid.T) { check() },
		})
	})
}
