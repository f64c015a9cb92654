package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/admin"
)

func TestDevicesInOrder(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.Local)
	earlier := now.Add(-time.Hour)
	all := &fleet{}
	for _, d := range []admin.Device{
		{Device: "lock", Transport: "b", Online: true, RemoteAddr: "10.0.0.10:5", ConnectedAt: &now, Waiting: 1},
		{Device: "10.0.0.10", Transport: "a"},
		{Device: "10.0.0.9", Transport: "a", Online: true, RemoteAddr: "10.0.0.9:7", ConnectedAt: &earlier, Waiting: 1, Asked: 1},
		{Device: "a\x1b[31mred", Transport: "a"},
	} {
		all.devices = append(all.devices, listed{Device: d})
	}
	for sort, want := range map[string][]string{
		"device":  {"10.0.0.9", "10.0.0.10", "a\x1b[31mred", "lock"},
		"since":   {"lock", "10.0.0.9", "10.0.0.10", "a\x1b[31mred"},
		"waiting": {"10.0.0.9", "lock", "10.0.0.10", "a\x1b[31mred"},
		"address": {"10.0.0.10", "a\x1b[31mred", "10.0.0.9", "lock"},
	} {
		c := choice{sort: sort}
		if err := c.check(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range c.chooseDevices(all.devices) {
			got = append(got, d.Device.Device)
		}
		equalLines(t, sort, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	c := choice{sort: "device"}
	equalLines(t, "table", c.formatTable(all, c.chooseDevices(all.devices), 3), strings.Join([]string{
		`DEVICE          TRANSPORT  STATE    SINCE                ADDRESS     WAITING  ASKED`,
		`10.0.0.9        a          online   2026-11-01 11:00:00  10.0.0.9:7  1        1`,
		`10.0.0.10       a          offline  -                    -           -        -`,
		`"a\x1b[31mred"  a          offline  -                    -           -        -`,
		`3 of 4 devices shown, 2 online`, ``,
	}, "\n"))
	equalLines(t, "nobody", c.formatTable(&fleet{}, nil, 0), "no device is connected\n")
}

func equalLines(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
	}
}

func TestScreen(t *testing.T) {
	text := "gateway  12:00:00\n\nüüüüüü\n"
	equalLines(t, "no terminal", screenOf(io.Discard).replaceScreen(text), text+"\n")
	equalLines(t, "a terminal", screen{rows: 24, columns: 5}.replaceScreen(text), "\x1b[Hgatew\x1b[K\r\n\x1b[K\r\nüüüüü\x1b[K\r\n\x1b[J")
}
