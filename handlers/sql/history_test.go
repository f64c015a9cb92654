package sql

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
	devices "github.com/pentrough/pentrough/transports/device"
)

func testHistory(t *testing.T, c *Config) {
	c.History = &History{Events: "past_events", Results: "past_results", Data: "past_data", Retention: time.Hour}
	h := quiet(t, c)
	if found := c.Check(t.Context()); !found[0].Missing {
		t.Errorf("before the first start: %+v", found)
	}
	named := func(msg *message.Message, id string) *message.Message {
		msg.Payload = []byte(strings.NewReplacer(`"event_id":"e"`, `"event_id":"`+id+`"`, `"event_id":"h"`, `"event_id":"`+id+`"`, `"data_id":"d"`, `"data_id":"`+id+`"`).Replace(string(msg.Payload)))
		return msg
	}
	for range 2 {
		write(t, h, named(deviceEvent("d", "a", 1, 5, 1, true), "e1"), named(deviceEvent("d", "a", 1, 5, 9, false), "e2"), named(deviceEvent("d", "a", 1, 5, 9, false), "e2"), named(hostEvent("a", 1, 1, devices.HostStarted), "h1"))
		write(t, h, named(data("d", 5, 2), "d1"), named(data("d", 5, 3), "d2"))
		write(t, h, result("r", "d", devices.StateHeld, 0, 0), result("r", "d", devices.StateSent, 5, time.Minute), result("r", "e", devices.StateSent, 5, 2*time.Hour))
	}
	if found := c.Check(t.Context()); found[0].Missing || found[0].Err != nil {
		t.Errorf("after it: %+v", found)
	}
	bad := devices.Data{Device: "d", Host: "a", Epoch: 5, Seq: 4, Encoding: devices.Text, Time: began}
	if out := h.HandleBatch(t.Context(), []*message.Message{carry(devices.TypeData, "d", bad.AppendJSON(nil))}); handlers.KindOf(out[0].Err) != handlers.KindPermanent {
		t.Errorf("data without an id: %v", out[0].Err)
	}
	d := h.db.Dialect()
	rows := func(query string) string {
		t.Helper()
		var all []string
		err := h.db.Query(t.Context(), database.Statement{Text: query}, func(scan func(...any) error) error {
			var row string
			err := scan(&row)
			all = append(all, row)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(all, " ")
	}
	expectRows := func(events, results, payloads string) {
		t.Helper()
		got := []string{
			rows("SELECT event_id FROM past_events ORDER BY event_id"), rows("SELECT device FROM past_results WHERE state = 'sent' ORDER BY device"), rows("SELECT payload FROM past_data ORDER BY seq"),
		}
		if diff := cmp.Diff([]string{events, results, payloads}, got); diff != "" {
			t.Error(diff)
		}
	}
	expectRows("e1 e2 h1", "d e", "t=1 t=1")
	binary := devices.Data{DataID: "d3", Device: "d", Host: "a", Epoch: 5, Seq: 4, Kind: "position", Partial: true, Time: began}
	binary.SetBytes("a\x00b")
	write(t, h, carry(devices.TypeData, "d", binary.AppendJSON(nil)))
	if got := rows("SELECT payload FROM past_data WHERE encoding = 'base64'"); got != "YQBi" {
		t.Errorf("a frame with a NUL is kept as %q", got)
	}
	if got := rows("SELECT data_id FROM past_data WHERE kind = 'position' AND partial"); got != "d3" {
		t.Errorf("the rows of partial positions: %q", got)
	}
	expect(t, h, "d", "online, data, results", "false 3 1")

	// Rows older than an hour are removed, in as many steps as needed.
	db, err := database.Open(string(c.URL), "test", 0)
	if err != nil {
		t.Fatal(err)
	}
	var many []database.Statement
	for i := range 2*expireStep + 1 {
		many = append(many, database.Statement{Text: h.histories[devices.TypeData].insert, Args: []any{fmt.Sprint("old", i), "d", "a", int64(1), int64(i), "text", "x", "", false, "", d.Time(began.Add(-time.Hour))}})
	}
	if err := h.db.Apply(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.removeOldRows(t.Context(), db, began.Add(time.Hour+52*time.Second)), h.removeOldRows(t.Context(), db, began.Add(time.Hour+52*time.Second)), db.Close()); err != nil {
		t.Fatal(err)
	}
	expectRows("e2", "d e", "")
	expect(t, h, "d", "online, data, results", "false 3 1")
}
