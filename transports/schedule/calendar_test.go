package schedule

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func calendarOf(t testing.TB, text, zone string) calendar {
	t.Helper()
	spec, err := parseCron(text)
	if err != nil {
		t.Fatal(err)
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return newCalendar(spec, loc)
}

const shape = "2006-01-02 15:04 -0700"

// TestOffsets checks calendars on the days on which clocks change.
func TestOffsets(t *testing.T) {
	for _, c := range []struct{ name, cron, zone, after, want string }{
		{"a plain day", "30 2 * * *", "Europe/Berlin", "2026-06-01 02:30 +0200", "2026-06-02 02:30 +0200"},
		{"an hour that is skipped", "30 2 * * *", "Europe/Berlin", "2026-03-28 12:00 +0100",
			"2026-03-29 03:00 +0200, 2026-03-30 02:30 +0200"},
		{"all of a skipped hour comes once", "*/20 2 * * *", "Europe/Berlin", "2026-03-28 12:00 +0100",
			"2026-03-29 03:00 +0200, 2026-03-30 02:00 +0200, 2026-03-30 02:20 +0200"},
		{"beside what lies after it", "0,30 2,3 * * *", "Europe/Berlin", "2026-03-28 12:00 +0100",
			"2026-03-29 03:00 +0200, 2026-03-29 03:30 +0200, 2026-03-30 02:00 +0200"},
		{"every hour", "0 * * * *", "Europe/Berlin", "2026-03-29 00:30 +0100",
			"2026-03-29 01:00 +0100, 2026-03-29 03:00 +0200, 2026-03-29 04:00 +0200"},
		{"an hour that is shown twice", "30 2 * * *", "Europe/Berlin", "2026-10-24 12:00 +0200",
			"2026-10-25 02:30 +0200, 2026-10-26 02:30 +0100"},
		{"asked the second time", "*/20 2,3 * * *", "Europe/Berlin", "2026-10-25 02:10 +0100", "2026-10-25 03:00 +0100"},
		{"every half an hour, shown twice", "*/30 * * * *", "Europe/Berlin", "2026-10-25 01:45 +0200",
			"2026-10-25 02:00 +0200, 2026-10-25 02:30 +0200, 2026-10-25 02:00 +0100, 2026-10-25 02:30 +0100, 2026-10-25 03:00 +0100"},
		{"a midnight that is skipped", "0 0 * * *", "Africa/Cairo", "2026-04-23 12:00 +0200",
			"2026-04-24 01:00 +0300, 2026-04-25 00:00 +0300"},
		{"and comes once a year", "0 0 4 11 *", "America/Sao_Paulo", "2018-11-03 12:00 -0300",
			"2018-11-04 01:00 -0200, 2019-11-04 00:00 -0300"},
		{"every hour of a day without midnight", "0 * * * 0", "America/Havana", "2026-03-07 12:00 -0500",
			"2026-03-08 01:00 -0400, 2026-03-08 02:00 -0400"},
		{"half an hour that is skipped", "10,35 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00 +1030",
			"2026-10-04 02:30 +1100, 2026-10-04 02:35 +1100, 2026-10-05 02:10 +1100"},
		{"either day", "0 0 13 * fri", "UTC", "2026-11-07 00:00 +0000",
			"2026-11-13 00:00 +0000, 2026-11-20 00:00 +0000, 2026-11-27 00:00 +0000, 2026-12-04 00:00 +0000, 2026-12-11 00:00 +0000, 2026-12-13 00:00 +0000"},
		{"a leap day over 2100", "0 0 29 2 *", "Europe/Berlin", "2096-03-01 00:00 +0100", "2104-02-29 00:00 +0100"},
		{"yearly", "@yearly", "Europe/Berlin", "2026-06-01 00:00 +0200", "2027-01-01 00:00 +0100"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cal := calendarOf(t, c.cron, c.zone)
			at, err := time.Parse(shape, c.after)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Split(c.want, ", ")
			var got []string
			for range want {
				at = cal.nextTime(at)
				got = append(got, at.In(cal.zone).Format(shape))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestCalendarModel compares calendars with a clock that is read each minute, around the days on
// which the clock changes.
func TestCalendarModel(t *testing.T) {
	set := map[string][]time.Time{
		"Europe/Berlin":       {time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC), time.Date(2026, 10, 25, 1, 0, 0, 0, time.UTC)},
		"Africa/Cairo":        {time.Date(2026, 4, 23, 22, 0, 0, 0, time.UTC), time.Date(2026, 10, 29, 21, 0, 0, 0, time.UTC)},
		"Australia/Lord_Howe": {time.Date(2026, 4, 4, 15, 0, 0, 0, time.UTC), time.Date(2026, 10, 3, 15, 30, 0, 0, time.UTC)},
		"America/Havana":      {time.Date(2026, 3, 8, 5, 0, 0, 0, time.UTC), time.Date(2026, 11, 1, 5, 0, 0, 0, time.UTC)},
	}
	rapid.Check(t, func(rt *rapid.T) {
		zone := rapid.SampledFrom([]string{"Europe/Berlin", "Africa/Cairo", "Australia/Lord_Howe", "America/Havana"}).Draw(rt, "zone")
		minute := rapid.SampledFrom([]string{"0", "30", "*/7", "5,10,59", "*"}).Draw(rt, "minute")
		hour := rapid.SampledFrom([]string{"*", "0", "1", "2", "0-3", "2,3", "*/2", "22-2", "0-23"}).Draw(rt, "hour")
		day := rapid.SampledFrom([]string{"* * *", "* * 0", "* * mon-fri", "29 3 *", "1 * 0"}).Draw(rt, "day")
		cal := calendarOf(t, minute+" "+hour+" "+day, zone)
		change := rapid.SampledFrom(set[zone]).Draw(rt, "change")
		after := change.Add(time.Duration(rapid.IntRange(-24*3600, 3*3600).Draw(rt, "after")) * time.Second)

		end := after.Add(3 * 24 * time.Hour)
		var want time.Time
		for at := after.Truncate(time.Minute).Add(time.Minute); at.Before(end); at = at.Add(time.Minute) {
			if comes(cal, at) {
				want = at
				break
			}
		}
		got := cal.nextTime(after)
		if want.IsZero() && !got.Before(end) || got.Equal(want) {
			return
		}
		rt.Fatalf("after %s: %s, want %s", after.In(cal.zone).Format(shape), got.In(cal.zone).Format(shape), want.In(cal.zone).Format(shape))
	})
}

// comes reports whether a calendar has a tick at a minute, given what the clock showed before.
func comes(c calendar, at time.Time) bool {
	wall := func(at time.Time) time.Time {
		l := at.In(c.zone)
		return time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), 0, 0, time.UTC)
	}
	means := func(wall time.Time) bool {
		return c.spec.Next(wall.Add(-time.Second)).Equal(wall)
	}
	now, before := wall(at), wall(at.Add(-time.Minute))
	if !c.hours {
		return means(now)
	}
	for at := before.Add(time.Minute); at.Before(now); at = at.Add(time.Minute) {
		if means(at) {
			return true // the clock skipped it
		}
	}
	if !means(now) {
		return false
	}
	for back := time.Minute; back <= 2*time.Hour; back += time.Minute {
		if wall(at.Add(-back)).Equal(now) {
			return false // the clock showed it before
		}
	}
	return true
}

// FuzzParse checks that no text makes the parser panic, and that the times of an accepted one
// follow each other in order.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"0 4 * * *", "*/5 22-2 1,15 jan-mar 7", "@weekly", "TZ=", "0 0 L * *", "? ? ? ? ?", "1-2-3 * * * *", "*/0 * * * *"} {
		f.Add(text)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := parseCron(text)
		if err != nil {
			return
		}
		c := newCalendar(spec, berlin)
		at := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
		for range 5 {
			next := c.nextTime(at)
			if !next.After(at) {
				t.Fatalf("%q: after %s comes %s", text, at, next)
			}
			if at.Equal(next.Truncate(time.Minute)) || next.Second() != 0 {
				t.Fatalf("%q: %s isn't a minute of its own after %s", text, next, at)
			}
			at = next
		}
	})
}
