package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones must be known in an image that has no zone database

	"github.com/netresearch/go-cron"
)

// fields are those of a cron expression, in order.
var fields = [...]struct{ name, allowed string }{
	{"minute", "0 to 59"},
	{"hour", "0 to 23"},
	{"day of the month", "1 to 31"},
	{"month", "1 to 12 or jan to dec"},
	{"day of the week", "0 to 7 or sun to sat"},
}

var descriptors = []string{"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}

// searchYears is how far a calendar looks ahead: 29 February comes after eight years at the latest.
const searchYears = 8

// parse reads a cron expression. Its error says which field doesn't fit.
func parse(text string) (*cron.SpecSchedule, error) {
	parser, err := cron.TryNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.DowOrDom)
	if err != nil {
		return nil, err
	}
	switch named := slices.Contains(descriptors, text); {
	case strings.Contains(text, "TZ="):
		return nil, errors.New("the time zone is a key of its own, zone")
	case strings.HasPrefix(text, "@every"):
		return nil, errors.New("an interval is a key of its own, every")
	case strings.HasPrefix(text, "@") && !named:
		return nil, fmt.Errorf("%q is not one of %s", text, strings.Join(descriptors, ", "))
	case !named:
		if err := check(parser, strings.Fields(text)); err != nil {
			return nil, err
		}
	}
	read, err := parser.WithMaxSearchYears(searchYears).Parse(text)
	if err != nil {
		return nil, err
	}
	spec, ok := read.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("%q is not a time of the wall clock", text)
	}
	if spec.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("%q never comes: no month has such a day", text)
	}
	return spec, nil
}

// check reads each field by itself.
func check(parser cron.Parser, given []string) error {
	if len(given) != len(fields) {
		return fmt.Errorf("has %d fields; there are five: minute, hour, day of the month, month, day of the week", len(given))
	}
	for i, field := range given {
		alone := slices.Repeat([]string{"*"}, len(fields))
		alone[i] = field
		_, err := parser.Parse(strings.Join(alone, " "))
		if err != nil || slices.Contains(strings.Split(field, ","), "") {
			return fmt.Errorf("the %s %q doesn't fit; it is %s, as *, 5, 1-5, */5 or a list of these", fields[i].name, field, fields[i].allowed)
		}
	}
	return nil
}

// calendar is a cron expression in a time zone.
//
// The expression is only ever asked inside a stretch of time in which the zone's offset stays the same. Where the offset changes, a calendar
// that names hours loses nothing and repeats nothing: what lies in an hour that the clock skips comes when it is skipped, and what the
// clock shows twice comes the first time. One for every hour goes on by the clock.
type calendar struct {
	spec *cron.SpecSchedule
	zone *time.Location
	// hours says that not every hour is meant.
	hours bool
}

func newCalendar(spec *cron.SpecSchedule, zone *time.Location) calendar {
	const all = 1<<24 - 1
	return calendar{spec: spec, zone: zone, hours: spec.Hour&all != all}
}

// next returns the first time after another, or zero if there is none in the years that are searched.
func (c calendar) next(after time.Time) time.Time {
	stretch := after.In(c.zone)
	for {
		name, offset := stretch.Zone()
		start, end := bounds(stretch)
		at := c.spec.Next(after.In(time.FixedZone(name, offset)))
		switch {
		case at.IsZero():
			return at
		case !end.IsZero() && !at.Before(end):
			stretch = end.In(c.zone)
			_, later := stretch.Zone()
			if c.hours && at.Sub(end) < seconds(later-offset) {
				return end
			}
			after = end.Add(-time.Second)
		case c.hours && c.shown(at, start, offset):
			after = at
		default:
			return at
		}
	}
}

// bounds is time.ZoneBounds, which ends a leap year that lies after the zone's table a day early (seen in Go 1.26): for that day it tells an
// end that has gone by. No zone sets its clock then.
func bounds(t time.Time) (start, end time.Time) {
	start, end = t.ZoneBounds()
	if !end.IsZero() && !end.After(t) {
		end = t.Add(24 * time.Hour)
	}
	return start, end
}

// shown reports whether the clock, which was set back at start, had shown the time before.
func (c calendar) shown(at, start time.Time, offset int) bool {
	if start.IsZero() {
		return false
	}
	_, before := start.Add(-time.Second).In(c.zone).Zone()
	return at.Sub(start) < seconds(before-offset)
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
