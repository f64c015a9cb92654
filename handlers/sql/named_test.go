package sql

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/transports"
	devices "github.com/pentrough/pentrough/transports/device"
)

func testYourOwnStatement(t *testing.T, c *Config) {
	c.Types = []string{devices.TypeData, devices.TypeResult}
	c.Statement = "INSERT INTO readings (device, at, seq, temp, text, header, frame) VALUES (:device, :time, :seq, :payload.t, :payload, :meta.header.site, :bytes) -- :nobody"
	if found := c.Check(t.Context()); found[0].Err == nil && !strings.HasPrefix(string(c.URL), "sqlite") {
		t.Errorf("without its table: %+v", found)
	}
	h := quiet(t, c)
	d := h.db.Dialect()
	binary := map[string]string{"PostgreSQL": "bytea", "MySQL": "blob", "SQLite": "blob"}[d.Name]
	text := "CREATE TABLE readings (device " + d.Types.Text + " NOT NULL, at " + d.Types.Time + " NOT NULL, seq bigint, temp double precision CHECK (temp < 100), text " + d.Types.Text +
		", header " + d.Types.Text + ", frame " + binary + ", UNIQUE (device, seq))"
	if err := h.db.Apply(t.Context(), []database.Statement{{Text: text}}); err != nil {
		t.Fatal(err)
	}
	if found := c.Check(t.Context()); found[0].Err != nil || found[0].Part != "statement" {
		t.Errorf("%+v", found)
	}
	say := func(seq uint64, payload string) *message.Message {
		d := devices.Data{DataID: "d", Device: "d", Host: "a", Epoch: 5, Seq: seq, Time: began.Add(123456789)}
		d.SetBytes(payload)
		return carry(devices.TypeData, "d", d.AppendJSON(nil))
	}
	first := say(1, `{"t":21.5}`)
	first.Metadata["header.site"] = "north"
	msgs := []*message.Message{
		first, say(2, `{"t":100}`), say(3, "no'); DROP TABLE readings; --"), say(4, "\xff\x00"), deviceEvent("d", "a", 1, 5, 1, true), carry(devices.TypeData, "d", []byte("{")), say(1, "again"),
		result("r", "d", devices.StateSent, 5, 0),
	}
	outcomes := h.HandleBatch(t.Context(), msgs)
	for i, o := range outcomes {
		if bad := i == 1 || i == 5 || i == 6; bad != (o.Err != nil) || bad && handlers.KindOf(o.Err) != handlers.KindPermanent {
			t.Errorf("message %d: %v", i, o.Err)
		}
	}
	var got []string
	err := h.db.Query(t.Context(), database.Statement{Text: "SELECT coalesce(seq, 0), temp, text, header, frame FROM readings ORDER BY 1"}, func(scan func(...any) error) error {
		var seq int64
		var temp *float64
		var text, header *string
		var frame []byte
		if err := scan(&seq, &temp, &text, &header, &frame); err != nil {
			return err
		}
		got = append(got, fmt.Sprintf("%d %t %t %t %q", seq, temp != nil && *temp == 21.5, text != nil, header != nil && *header == "north", frame))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`0 false false false ""`, `1 true true true "{\"t\":21.5}"`, `3 false true false "no'); DROP TABLE readings; --"`, `4 false true false "\xff\x00"`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func testNumbers(t *testing.T, c *Config) {
	c.Types = []string{devices.TypeData}
	c.Statement = "INSERT INTO cards (seq, iccid, n, header) VALUES (:seq, :payload.iccid, :payload.n, :meta.header.n)"
	h := quiet(t, c)
	d := h.db.Dialect()
	// A boolean can't have the value of seq in PostgreSQL.
	for _, column := range []string{"boolean", "bigint"} {
		if err := h.db.Apply(t.Context(), []database.Statement{
			{Text: "DROP TABLE IF EXISTS cards"}, {Text: "CREATE TABLE cards (seq " + column + ", iccid varchar(40), n bigint, header decimal(20,2))"},
		}); err != nil {
			t.Fatal(err)
		}
		if found := c.Check(t.Context()); (found[0].Err == nil) != (column == "bigint" || d.Name != "PostgreSQL") {
			t.Errorf("%s: %+v", column, found)
		}
	}
	say := func(seq uint64, payload, header string) *message.Message {
		d := devices.Data{DataID: "d", Device: "d", Host: "a", Epoch: 5, Seq: seq, Time: began}
		d.SetBytes(payload)
		msg := carry(devices.TypeData, "d", d.AppendJSON(nil))
		msg.Metadata["header.n"] = header
		return msg
	}
	msgs := []*message.Message{
		say(1, `{"iccid":89860045061950080012,"n":1e3}`, "21.50"), say(2, `{"iccid":1,"n":89860045061950080012}`, "1"), say(3, `{"iccid":1,"n":1E-999}`, "1"),
		handlertest.Gzip(t, say(4, `{"iccid":true,"n":null}`, "-0")), say(5, `{"iccid":{"a":[1.00]}}`, "1"), say(6, `{"iccid":"\u0001\ud800"}`, "1"), carry(devices.TypeData, "d", []byte(`{"device":"\ud800"}`)),
	}
	msgs = append(msgs, handlers.NewMessage(nil))
	msgs[7].Metadata = message.Metadata{transports.Type: devices.TypeData, transports.ContentEncoding: "br"}
	for i, o := range h.HandleBatch(t.Context(), msgs) {
		if bad := i == 1 || i == 2 || i > 5; bad != (o.Err != nil) || bad && handlers.KindOf(o.Err) != handlers.KindPermanent {
			t.Errorf("message %d: %v", i, o.Err)
		}
		if i == 1 && !strings.Contains(fmt.Sprint(o.Err), "the number 89860045061950080012") && d.Name == "SQLite" {
			t.Error(o.Err)
		}
	}
	var got []string
	if err := h.db.Query(t.Context(), database.Statement{Text: "SELECT seq, coalesce(iccid, ''), coalesce(n, -1) FROM cards ORDER BY 1"}, func(scan func(...any) error) error {
		var seq, n int64
		var iccid string
		err := scan(&seq, &iccid, &n)
		got = append(got, fmt.Sprint(seq, " ", iccid, " ", n))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1 89860045061950080012 1000", "4 true -1", `5 {"a":[1.00]} -1`, "6  -1"}, got); diff != "" {
		t.Error(diff)
	}
}
