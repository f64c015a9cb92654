package sql

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	devices "github.com/pentrough/pentrough/transports/device"
)

func TestMain(m *testing.M) { await.Main(m) }

var began = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// Each test runs on every database, in its own file or schema.
func TestDatabases(t *testing.T) {
	t.Parallel()
	server, mysql := testenv.NewPostgres(t), testenv.NewMySQL(t)
	for name, test := range map[string]func(*testing.T, *Config){
		"ARowIsKept":        testARowIsKept,
		"ALostHost":         testALostHost,
		"OneBadRow":         testOneBadRow,
		"YourOwnTable":      testYourOwnTable,
		"Checks":            testChecks,
		"TheTableConverges": testTheTableConverges,
		"TheRosterIsRead":   testTheRosterIsRead,
		"YourOwnStatement":  testYourOwnStatement,
		"History":           testHistory,
		"Numbers":           testNumbers,
	} {
		t.Run(name+"/sqlite", func(t *testing.T) { test(t, config("sqlite:"+filepath.Join(t.TempDir(), "a.db"))) })
		schema := strings.ToLower(name)
		t.Run(name+"/postgres", func(t *testing.T) {
			apply(t, server.URL, "CREATE SCHEMA "+schema)
			test(t, config(server.URL+"&search_path="+schema))
		})
		t.Run(name+"/mysql", func(t *testing.T) {
			apply(t, mysql.URL, "CREATE DATABASE "+schema)
			test(t, config(strings.TrimSuffix(mysql.URL, "test")+schema))
		})
	}
}

func apply(t *testing.T, url, text string) {
	t.Helper()
	db, err := database.Open(url, "test", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Apply(t.Context(), []database.Statement{{Text: text}}), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func config(url string) *Config {
	c := defaults
	c.URL = transports.Secret(url)
	// A slow machine must not make a host count as silent, or a statement as too slow.
	c.Silence, c.Timeout = time.Hour, await.Patience
	return &c
}

// quiet builds a handler that looks for silent hosts only when the test calls it.
func quiet(t testing.TB, c *Config) *handler {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	h, err := c.build(handlertest.NewHost(t).Env())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// quietEnv returns an environment whose logger writes nothing.
func quietEnv(t testing.TB) handlers.Env {
	env := handlertest.NewHost(t).Env()
	env.Logger = slog.New(slog.DiscardHandler)
	return env
}

func carry(kind, device string, body []byte) *message.Message {
	msg := handlers.NewMessage(body)
	msg.Metadata[transports.Type] = kind
	if device != "" {
		msg.Metadata[transports.Device] = device
	}
	return msg
}

func event(e devices.Event) *message.Message {
	return carry(devices.TypeEvent, e.Device, e.AppendJSON(nil))
}

func deviceEvent(device, host string, generation, epoch, seq uint64, up bool) *message.Message {
	e := devices.Event{EventID: "e", Type: devices.Connected, Device: device, Online: up, RemoteAddr: "10.0.0.7:40", Host: host, Generation: generation, Epoch: epoch, Seq: seq,
		ConnectedAt: began, Time: began.Add(time.Duration(epoch*10+seq) * time.Second)}
	if !up {
		e.Type, e.Reason = devices.Disconnected, devices.IdleTimeout
	}
	return event(e)
}

func hostEvent(host string, generation, seq uint64, reason devices.Reason) *message.Message {
	return event(devices.Event{EventID: "h", Type: devices.HostEvent, Host: host, Online: reason != devices.HostStopped, Reason: reason, Generation: generation, Seq: seq, Time: began})
}

func data(device string, epoch, seq uint64) *message.Message {
	d := devices.Data{DataID: "d", Device: device, Host: "a", Epoch: epoch, Seq: seq, Encoding: devices.Text, Payload: "t=1", Time: began.Add(time.Duration(seq) * time.Second)}
	return carry(devices.TypeData, device, d.AppendJSON(nil))
}

func result(id, device string, state devices.State, epoch uint64, at time.Duration) *message.Message {
	return devices.Result{ID: id, Device: device, State: state, Host: "a", Epoch: epoch, Attempt: 1, Time: began.Add(at)}.Message()
}

// write handles all messages in one batch, and fails the test on an error.
func write(t testing.TB, h *handler, msgs ...*message.Message) {
	t.Helper()
	for i, o := range h.HandleBatch(t.Context(), msgs) {
		if o.Err != nil {
			t.Fatalf("handling %s: %v", msgs[i].Payload, o.Err)
		}
	}
}

// row returns columns of a device's row, or "" if there is none.
func row(t testing.TB, h *handler, device, columns string) string {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	found := ""
	text := "SELECT " + columns + " FROM " + h.db.Dialect().Quote(h.Table) + " WHERE " + h.db.Dialect().Quote(h.Key) + " = " + h.db.Dialect().Parameter(1)
	err := h.db.Query(t.Context(), database.Statement{Text: text, Args: []any{device}}, func(scan func(...any) error) error {
		got := make([]any, strings.Count(columns, ",")+1)
		to := make([]any, len(got))
		for i := range got {
			to[i] = &got[i]
		}
		if err := scan(to...); err != nil {
			return err
		}
		for i, v := range got {
			if !h.db.Dialect().Numbered && (v == int64(0) || v == int64(1)) && i == 0 {
				got[i] = v == int64(1)
			}
			if text, ok := v.([]byte); ok {
				got[i] = string(text)
			}
		}
		found = strings.TrimSuffix(fmt.Sprintln(got...), "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func expect(t testing.TB, h *handler, device, columns, want string) {
	t.Helper()
	if diff := cmp.Diff(want, row(t, h, device, columns)); diff != "" {
		t.Errorf("%s of %s: %s", columns, device, diff)
	}
}

func testARowIsKept(t *testing.T, c *Config) {
	h := quiet(t, c)
	first, gone := deviceEvent("d", "a", 1, 5, 1, true), deviceEvent("d", "a", 1, 5, 9, false)
	write(t, h, first)
	expect(t, h, "d", "online, reason, remote_addr, host, generation, epoch, seq, results, data", "true  10.0.0.7:40 a 1 5 1 0 0")
	write(t, h, data("d", 5, 2), data("d", 5, 3), data("d", 5, 2))
	write(t, h, data("d", 5, 3), result("r1", "d", devices.StateSent, 5, time.Second), result("r1", "d", devices.StateSent, 5, time.Second))
	write(t, h, result("r2", "d", devices.StateOffline, 0, time.Second), result("r3", "d", devices.StateHeld, 0, time.Hour), result("r0", "d", devices.StateSent, 5, 0))
	expect(t, h, "d", "online, last_result_id, last_result_state, results, data, data_seq", "true r2 offline 2 2 3")
	write(t, h, gone, first, gone)
	expect(t, h, "d", "online, reason, epoch, seq, results, data", "false idle_timeout 5 9 2 2")

	// A takeover in any order, and results of devices that don't exist.
	write(t, h, deviceEvent("d", "b", 1, 6, 1, true), deviceEvent("d", "a", 1, 5, 10, false))
	expect(t, h, "d", "online, host, epoch, seq", "true b 6 1")
	write(t, h, result("r", "typo", devices.StateOffline, 0, 0), result("r", "seen", devices.StateSent, 4, 0), data("new", 3, 1))
	expect(t, h, "typo", "online", "")
	expect(t, h, "seen", "online, results, epoch", "false 1 0")
	expect(t, h, "new", "online, data, epoch", "false 1 0")
	write(t, h, deviceEvent("new", "a", 1, 3, 0+1, true))
	expect(t, h, "new", "online, data, epoch", "true 1 3")
}

func testALostHost(t *testing.T, c *Config) {
	h := quiet(t, c)
	write(t, h, hostEvent("a", 1, 1, devices.HostStarted), deviceEvent("d", "a", 1, 5, 1, true), deviceEvent("e", "a", 1, 6, 1, true), deviceEvent("e", "a", 1, 6, 2, false))
	state := func(d, want string) { t.Helper(); expect(t, h, d, "online, connected, reason, epoch, seq", want) }
	connected := func(up bool) any {
		if h.db.Dialect().Numbered {
			return up
		}
		return map[bool]int{true: 1}[up] // SQLite has no boolean type
	}
	up, lost := fmt.Sprintf("true %v  5 1", connected(true)), fmt.Sprintf("false %v node_lost 5 1", connected(true))
	other := fmt.Sprintf("false %v idle_timeout 6 2", connected(false))
	state("d", up)

	silence := func() {
		t.Helper()
		for _, k := range h.known {
			k.at = k.at.Add(-c.Silence)
		}
		if err := h.checkDatabase(); err != nil {
			t.Fatal(err)
		}
	}
	silence()
	state("d", lost)
	state("e", other)
	// Repeat the first messages.
	write(t, h, deviceEvent("d", "a", 1, 5, 1, true), hostEvent("a", 1, 1, devices.HostStarted))
	state("d", lost)
	write(t, h, deviceEvent("late", "a", 1, 7, 1, true))
	expect(t, h, "late", "online, reason", "false node_lost")
	write(t, h, hostEvent("a", 1, 2, devices.HostHeartbeat))
	state("d", up)
	expect(t, h, "late", "online, reason", "true ")
	state("e", other)

	// A message that another process has received counts.
	elsewhere := quiet(t, c)
	write(t, elsewhere, hostEvent("a", 1, 3, devices.HostHeartbeat))
	silence()
	state("d", up)

	// While the source may have more messages, a host isn't lost.
	for name, s := range map[string]handlers.Source{"away": {Present: h.sourceTime}, "full": {Present: h.sourceTime + 1, Full: true}, "behind": {Present: h.sourceTime + 1, Oldest: maxSourceDelay}} {
		h.env.Source = func() handlers.Source { return s }
		silence()
		if got := row(t, h, "d", "online"); got != "true" {
			t.Errorf("%s: the host was taken for lost", name)
		}
		h.sourceTime = 0
	}
	h.env.Source = nil

	write(t, h, hostEvent("a", 1, 4, devices.HostStopped))
	state("d", lost)
	write(t, h, hostEvent("a", 1, 3, devices.HostHeartbeat))
	state("d", lost)
	write(t, h, hostEvent("a", 2, 1, devices.HostStarted), deviceEvent("n", "a", 2, 8, 1, true))
	state("d", lost)
	expect(t, h, "n", "online, reason", "true ")

	// Only a device's event has the third generation.
	write(t, h, deviceEvent("m", "a", 3, 9, 1, true))
	expect(t, h, "n", "online, reason", "false node_lost")
	expect(t, h, "m", "online, reason", "true ")

	// A new process knows the hosts that it heard last, and counts their silence from its start.
	again := quiet(t, c)
	if err := again.checkDatabase(); err != nil {
		t.Fatal(err)
	}
	if k := again.known["a"]; k == nil || k.generation != 3 || k.ended {
		t.Fatalf("after the restart the host is %+v", k)
	}
	expect(t, again, "m", "online, reason", "true ")
	again.known["a"].at = time.Time{}
	if err := again.checkDatabase(); err != nil {
		t.Fatal(err)
	}
	expect(t, h, "m", "online, reason", "false node_lost")
}

func testOneBadRow(t *testing.T, c *Config) {
	h := quiet(t, c)
	write(t, h, deviceEvent("d0", "a", 1, 1, 1, true))
	h.mu.Lock()
	check := "CREATE TRIGGER no BEFORE INSERT ON devices WHEN NEW.device = 'd7' BEGIN SELECT RAISE(ABORT, 'not that one'); END"
	if d := h.db.Dialect(); d.Name != "SQLite" {
		check = "ALTER TABLE devices ADD CONSTRAINT " + d.Quote("not that one") + " CHECK (device <> 'd7')"
	}
	if err := h.db.Apply(t.Context(), []database.Statement{{Text: check}}); err != nil {
		t.Fatal(err)
	}
	h.mu.Unlock()
	var msgs []*message.Message
	for i := range 20 {
		msgs = append(msgs, deviceEvent(fmt.Sprintf("d%d", i), "a", 1, 2, 1, true))
	}
	msgs = append(msgs, carry("event", "", []byte(`{"type":"connected"}`)), carry("group", "", []byte(`{}`)), carry("odd", "", nil))
	for i, o := range h.HandleBatch(t.Context(), msgs) {
		bad := i == 7 || i == 20 || i == 22
		if bad != (o.Err != nil) || bad && handlers.KindOf(o.Err) != handlers.KindPermanent {
			t.Errorf("message %d: %v", i, o.Err)
		}
		if i == 7 && !strings.Contains(fmt.Sprint(o.Err), "not that one") {
			t.Errorf("the database's words are missing: %v", o.Err)
		}
	}
	for i := range 20 {
		if got := row(t, h, fmt.Sprintf("d%d", i), "online"); (got == "true") != (i != 7) {
			t.Errorf("d%d: %q", i, got)
		}
	}
}

func testYourOwnTable(t *testing.T, c *Config) {
	c.Table, c.Key, c.Insert = "fleet device", "address", false
	c.Columns = map[string]string{"connected": "is_on", "epoch": "epoch", "seq": "seq", "last_seen": "seen", "data_epoch": "de", "data_seq": "ds", "data": "n"}
	h := quiet(t, c)
	d := h.db.Dialect()
	text := "CREATE TABLE " + d.Quote("fleet device") + " (id integer PRIMARY KEY, address " + d.Types.Text + " UNIQUE NOT NULL, label text NOT NULL, is_on " + d.Types.Bool +
		", epoch bigint, seq bigint, seen " + d.Types.Time + ", de bigint, ds bigint, n integer)"
	if err := h.db.Apply(t.Context(), []database.Statement{{Text: text}}); err != nil {
		t.Fatal(err)
	}
	if err := h.db.Apply(t.Context(), []database.Statement{{Text: "INSERT INTO " + d.Quote("fleet device") + " (id, address, label) VALUES (1, 'd', 'mine')"}}); err != nil {
		t.Fatal(err)
	}
	write(t, h, deviceEvent("d", "a", 1, 5, 2, true), deviceEvent("x", "a", 1, 5, 2, true), data("d", 5, 3), data("d", 5, 3), deviceEvent("d", "a", 1, 5, 1, false))
	expect(t, h, "d", "is_on, label, epoch, seq, n", "true mine 5 2 1")
	expect(t, h, "x", "label", "")
	for _, check := range c.Check(t.Context()) {
		if check.Err != nil || check.Missing {
			t.Errorf("a good table: %+v", check)
		}
	}
	c.Columns["last_seen"] = "sen"
	if found := c.Check(t.Context()); found[0].Err == nil || !strings.Contains(found[0].Err.Error(), "sen") {
		t.Errorf("a column that isn't there: %+v", found)
	}
}

func testChecks(t *testing.T, c *Config) {
	if found := c.Check(t.Context()); !found[0].Missing || found[0].Err != nil {
		t.Errorf("before the first start: %+v", found)
	}
	h := quiet(t, c)
	if err := h.checkDatabase(); err != nil {
		t.Fatal(err)
	}
	if found := c.Check(t.Context()); found[0].Missing || found[0].Err != nil {
		t.Errorf("after it: %+v", found)
	}
	c.Migrate, c.Table = false, "absent"
	if found := c.Check(t.Context()); found[0].Err == nil {
		t.Errorf("a table that nobody makes: %+v", found)
	}
}

// A database is killed repeatedly in the middle of writes. No message is lost, and none counts
// twice.
func TestKilled(t *testing.T) {
	t.Parallel()
	server := testenv.NewPostgres(t)
	h := quiet(t, config(server.URL))
	write(t, h, deviceEvent("d", "a", 1, 5, 1, true))
	killed := make(chan struct{})
	var outages atomic.Int64
	go func() {
		defer close(killed)
		for range 3 {
			before := outages.Load()
			server.Kill(t)
			await.That(t, "somebody notices that the database was killed", func() (any, bool) {
				n := outages.Load() - before
				return fmt.Sprintf("%d outages", n), n > 0
			})
			server.Start(t)
		}
	}()
	n := uint64(0)
	for during := true; during; {
		select {
		case <-killed:
			during = false
		default:
		}
		msgs := []*message.Message{data("d", 5, n+2), data("d", 5, n+3)}
		n += 2
		for again := true; again; {
			again = false
			for _, o := range h.HandleBatch(t.Context(), msgs) {
				if o.Err == nil {
					continue
				}
				again = true
				outages.Add(1)
				if handlers.KindOf(o.Err) != handlers.KindUnavailable {
					t.Fatalf("a dead database: %v", o.Err)
				}
			}
		}
	}
	expect(t, h, "d", "online, data, data_seq", fmt.Sprintf("true %d %d", n, n+1))
}

func TestSlow(t *testing.T) {
	t.Parallel()
	server := testenv.NewPostgres(t)
	h := quiet(t, config(server.URL))
	write(t, h, deviceEvent("d", "a", 1, 5, 1, true))
	other, err := database.Open(server.URL, "other", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Apply(t.Context(), []database.Statement{{Text: "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NEW; END'"},
		{Text: "CREATE TRIGGER slow BEFORE UPDATE ON devices FOR EACH ROW EXECUTE FUNCTION slow()"}}); err != nil {
		t.Fatal(err)
	}
	h.Timeout = 100 * time.Millisecond
	o := h.HandleBatch(t.Context(), []*message.Message{deviceEvent("d", "a", 1, 5, 2, false)})[0]
	if handlers.KindOf(o.Err) != handlers.KindUnavailable || !strings.Contains(o.Err.Error(), "longer than 100ms") {
		t.Errorf("a slow database: %v", o.Err)
	}
}

// The host reports that its database doesn't work before a message comes for it.
func TestAwayAtTheStart(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "later")
	h := handlertest.NewHost(t).Build(config("sqlite:" + filepath.Join(folder, "a.db")))
	defer h.(io.Closer).Close()
	health := h.(handlers.Reporter).Health
	await.That(t, "it isn't well", func() (any, bool) { return "healthy", health() != nil })
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	await.That(t, "it is well", func() (any, bool) {
		err := health()
		return err, err == nil
	})
}

func TestDuties(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	handlertest.Run(t, func(t *testing.T) handlers.Handler { return handlertest.NewHost(t).Build(config("sqlite:" + path)) },
		deviceEvent("d", "a", 1, 5, 1, true), hostEvent("a", 1, 1, devices.HostHeartbeat), data("d", 5, 2), result("r", "d", devices.StateSent, 5, 0))
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no url":           {func(c *Config) { c.URL = "" }, "is missing"},
		"odd url":          {func(c *Config) { c.URL = "mongo://x" }, "isn't the URL of a known database"},
		"unknown field":    {func(c *Config) { c.Columns = map[string]string{"onlin": "x"} }, "is no field of a device's row"},
		"needs":            {func(c *Config) { c.Columns = map[string]string{"online": "x", "epoch": "e", "seq": "s"} }, "also needs columns for connected, host, generation"},
		"twice":            {func(c *Config) { c.Columns = map[string]string{"epoch": "e", "seq": "e"} }, "which columns.epoch already uses"},
		"key":              {func(c *Config) { c.Key = "address" }, "only for your own table"},
		"hosts":            {func(c *Config) { c.Hosts = c.Table }, "is the table of the devices"},
		"empty":            {func(c *Config) { c.Table = "a..b" }, "empty part"},
		"silence":          {func(c *Config) { c.Silence = time.Second }, "at least 10s"},
		"mode":             {func(c *Config) { c.Mode = "rw" }, "permissions in octal"},
		"mode of no use":   {func(c *Config) { c.Mode = "0444" }, "has to read and write"},
		"mode of a server": {func(c *Config) { c.URL, c.Mode = "postgres://x/y", "0600" }, "is only for a SQLite file"},
		"timeout":          {func(c *Config) { c.Timeout = 0 }, "at least 1s"},
	} {
		conf := config("sqlite:x.db")
		c.change(conf)
		if err := conf.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A read-only server pauses the pipeline, also before a message comes. No message is lost.
func TestAServerThatBecameReadOnly(t *testing.T) {
	server := testenv.NewMySQL(t)
	root := server.Restrict(t)
	h := handlertest.NewHost(t).Build(config(server.URL)).(*handler)
	defer h.Close()
	write(t, h, deviceEvent("d", "a", 1, 5, 1, true))
	root("SET GLOBAL read_only = ON")
	await.That(t, "it says why", func() (any, bool) {
		err := h.Health()
		return err, err != nil && strings.Contains(err.Error(), "read-only")
	})
	msg := deviceEvent("d", "a", 1, 5, 2, true)
	if o := h.HandleBatch(t.Context(), []*message.Message{msg})[0]; handlers.KindOf(o.Err) != handlers.KindUnavailable {
		t.Errorf("a write: %v", o.Err)
	}
	root("SET GLOBAL read_only = OFF")
	await.That(t, "it is well", func() (any, bool) { err := h.Health(); return err, err == nil })
	write(t, h, msg)
	expect(t, h, "d", "seq", "2")
}

// A lost file is an outage until it is back: messages don't fail. A file that replaces it is
// checked like a new one.
func TestALostFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	c := config("sqlite:" + path)
	c.Mode = "0600"
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	h := handlertest.NewHost(t).Build(c).(*handler)
	defer h.Close()
	await.That(t, "the file is there", func() (any, bool) {
		info, err := os.Stat(path)
		return err, err == nil && info.Mode().Perm() == 0o600
	})
	write(t, h, deviceEvent("d", "a", 1, 5, 1, true))
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	await.That(t, "it isn't well", func() (any, bool) { return "healthy", h.Health() != nil })
	await.That(t, "it says what to do", func() (any, bool) {
		err := h.Health()
		return err, err != nil && strings.Contains(err.Error(), "put it back")
	})
	if o := h.HandleBatch(t.Context(), []*message.Message{deviceEvent("d", "a", 1, 5, 2, true)})[0]; handlers.KindOf(o.Err) != handlers.KindUnavailable {
		t.Errorf("without its file: %v", o.Err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made anew: %v", err)
	}
	// An empty file gets new tables.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await.That(t, "it is well", func() (any, bool) { err := h.Health(); return err, err == nil })
	write(t, h, deviceEvent("d", "a", 1, 5, 3, true))
	expect(t, h, "d", "seq", "3")
}
