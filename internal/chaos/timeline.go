package chaos

import (
	"slices"
	"time"
)

// timeline is faults by their begin. None ends before it begins.
type timeline struct {
	faults []Fault
	// reach is, at each place, the latest end so far.
	reach []time.Time
}

// add takes a fault that begins no earlier than those that are there.
func (t *timeline) add(f Fault) {
	reach := f.End
	if n := len(t.reach); n > 0 && t.reach[n-1].After(reach) {
		reach = t.reach[n-1]
	}
	t.faults, t.reach = append(t.faults, f), append(t.reach, reach)
}

// any says whether one that matters was on at some time between from and to.
func (t *timeline) any(from, to time.Time, matters func(Fault) bool) bool {
	first, _ := slices.BinarySearchFunc(t.reach, from, time.Time.Compare)
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

// end is when the last is over; the zero time if there is none.
func (t *timeline) end() time.Time {
	if len(t.reach) == 0 {
		return time.Time{}
	}
	return t.reach[len(t.reach)-1]
}
