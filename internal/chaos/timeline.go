package chaos

import (
	"slices"
	"time"
)

// timeline has faults sorted by begin. No fault ends before it begins.
type timeline struct {
	faults []Fault
	// latestEnd has, at each place, the latest end of the faults up to that place.
	latestEnd []time.Time
}

// add appends a fault that begins no earlier than the others.
func (t *timeline) add(f Fault) {
	reach := f.End
	if n := len(t.latestEnd); n > 0 && t.latestEnd[n-1].After(reach) {
		reach = t.latestEnd[n-1]
	}
	t.faults, t.latestEnd = append(t.faults, f), append(t.latestEnd, reach)
}

// anyBetween reports whether a fault that matters was active at some time between from and to.
func (t *timeline) anyBetween(from, to time.Time, matters func(Fault) bool) bool {
	first, _ := slices.BinarySearchFunc(t.latestEnd, from, time.Time.Compare)
	for _, f := range t.faults[first:] {
		if f.Begin.After(to) {
			return false
		}
		if !f.End.Before(from) && matters(f) {
			return true
		}
	}
	return false
}

// lastEnd returns when the last fault ended, or the zero time if there is none.
func (t *timeline) lastEnd() time.Time {
	if len(t.latestEnd) == 0 {
		return time.Time{}
	}
	return t.latestEnd[len(t.latestEnd)-1]
}
