package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // for images without a time zone database

	"github.com/netresearch/go-cron"
)

// fields are the fields of a cron expression, in order.
var fields = [...]struct{ name, allowed string }{
	{"minute", "0 to 59"},
	{"hour", "0 to 23"},
	{"day of the month", "1 to 31"},
	{"month", "1 to 12 or jan to dec"},
	{"day of the week", "0 to 7 or sun to sat"},
}

var descriptors = []string{"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}

// searchYears is how many years a calendar searches for the next time. The longest gap is that
// before 29 February: eight years.
const searchYears = 8

// parseCron parses a cron expression. Its error names the invalid field.
func parseCron(text string) (*cron.SpecSchedule, error) {
	parser, err := cron.TryNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.DowOrDom)
	if err != nil {
		return nil, err
	}
	switch named := slices.Contains(descriptors, text); {
	case strings.Contains(text, "TZ="):
		return nil, errors.New("set the time zone with the key zone")
	case strings.HasPrefix(text, "@every"):
		return nil, errors.New("set an interval with the key every")
	case strings.HasPrefix(text, "@") && !named:
		return nil, fmt.Errorf("%q is not one of %s", text, strings.Join(descriptors, ", "))
	case !named:
		if err := checkFields(parser, strings.Fields(text)); err != nil {
			return nil, err
		}
	}
	read, err := parser.WithMaxSearchYears(searchYears).Parse(text)
	if err != nil {
		return nil, err
	}
	spec, ok := read.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("%q is not a cron expression", text)
	}
	if spec.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("%q never happens: no month has such a day", text)
	}
	return spec, nil
}

// checkFields parses each field alone, to find the invalid one.
func checkFields(parser cron.Parser, given []string) error {
	if len(given) != len(fields) {
		return fmt.Errorf("has %d fields, must have five: minute, hour, day of the month, month, day of the week", len(given))
	}
	for i, field := range given {
		alone := slices.Repeat([]string{"*"}, len(fields))
		alone[i] = field
		_, err := parser.Parse(strings.Join(alone, " "))
		if err != nil || slices.Contains(strings.Split(field, ","), "") {
			return fmt.Errorf("the %s %q is invalid; allowed: %s, written as *, 5, 1-5, */5 or a list of them", fields[i].name, field, fields[i].allowed)
		}
	}
	return nil
}

// calendar is a cron expression in a time zone.
//
// A zone's offset from UTC changes, for example for summer time. So nextTime evaluates the
// expression only inside a stretch of time with one offset, and decides itself what happens
// between two stretches. A calendar that names hours must not lose or repeat a tick there. If the
// clock skips an hour, the ticks of that hour are due at the change. If the clock shows an hour
// twice, its ticks are due the first time. A calendar for every hour simply follows the clock.
type calendar struct {
	spec *cron.SpecSchedule
	zone *time.Location
	// hours says that the expression names hours, and isn't for every hour.
	hours bool
}

func newCalendar(spec *cron.SpecSchedule, zone *time.Location) calendar {
	const all = 1<<24 - 1
	return calendar{spec: spec, zone: zone, hours: spec.Hour&all != all}
}

// nextTime returns the calendar's first time after the given one. It returns zero if there is none
// in searchYears.
func (c calendar) nextTime(after time.Time) time.Time {
	stretch := after.In(c.zone)
	for {
		name, offset := stretch.Zone()
		start, end := zoneBounds(stretch)
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
		case c.hours && c.shownBefore(at, start, offset):
			after = at
		default:
			return at
		}
	}
}

// zoneBounds returns the bounds of time.ZoneBounds, with a correction. For a leap year after the
// end of the zone's table, ZoneBounds is wrong on the last day (seen in Go 1.26): it returns an
// end that is in the past. No zone changes its clock on that day.
func zoneBounds(t time.Time) (start, end time.Time) {
	start, end = t.ZoneBounds()
	if !end.IsZero() && !end.After(t) {
		end = t.Add(24 * time.Hour)
	}
	return start, end
}

// shownBefore reports whether the clock showed the time at once already, before it was set back at
// start.
func (c calendar) shownBefore(at, start time.Time, offset int) bool {
	if start.IsZero() {
		return false
	}
	_, before := start.Add(-time.Second).In(c.zone).Zone()
	return at.Sub(start) < seconds(before-offset)
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
