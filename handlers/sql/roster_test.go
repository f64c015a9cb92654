package sql

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testTheRosterIsRead(t *testing.T, c *Config) {
	h := quiet(t, c)
	if _, err := c.roster(t.Context()); err == nil {
		t.Error("a table that isn't there was read")
	}
	write(t, h, deviceEvent("d", "a", 1, 5, 1, true), data("d", 5, 2), deviceEvent("e", "a", 1, 6, 1, true), deviceEvent("e", "a", 1, 6, 2, false))
	rows, err := c.roster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(rows, func(a, b map[string]any) int { return strings.Compare(a["device"].(string), b["device"].(string)) })
	begun := func(epoch, seq int) time.Time { return began.Add(time.Duration(epoch*10+seq) * time.Second) }
	want := []map[string]any{
		{
			"device": "d", "online": true, "connected": true, "host": "a", "remote_addr": "10.0.0.7:40", "generation": int64(1), "epoch": int64(5), "seq": int64(1),
			"connected_at": began, "changed_at": begun(5, 1), "last_seen": begun(5, 1), "results": int64(0), "data": int64(1), "data_epoch": int64(5), "data_seq": int64(2), "last_data_at": began.Add(2 * time.Second),
		},
		{
			"device": "e", "online": false, "connected": false, "reason": "idle_timeout", "host": "a", "remote_addr": "10.0.0.7:40", "generation": int64(1), "epoch": int64(6), "seq": int64(2),
			"connected_at": began, "changed_at": begun(6, 2), "last_seen": begun(6, 2), "results": int64(0), "data": int64(0), "data_epoch": int64(0), "data_seq": int64(0),
		},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
	c.Columns = map[string]string{"connected": "connected", "epoch": "epoch", "seq": "seq"}
	if rows, err = c.roster(t.Context()); err != nil || len(rows) != 2 || rows[0]["online"] != rows[0]["connected"] || len(rows[0]) != 5 {
		t.Errorf("with a map: %v, %v", rows, err)
	}
	c.Columns = map[string]string{"last_result_id": "last_result_id", "last_result_at": "last_result_at"}
	if _, err = c.roster(t.Context()); err == nil {
		t.Error("a table that doesn't know who is there has a roster")
	}
}
