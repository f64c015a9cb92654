package scenario_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/cmd/pentrough/internal/scenario"
	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/bubble"
	"github.com/pentrough/pentrough/internal/testenv/await"
	_ "github.com/pentrough/pentrough/transports/codec/delimiter"
	_ "github.com/pentrough/pentrough/transports/codec/raw"
	_ "github.com/pentrough/pentrough/transports/protocol/rules"
)

// taken writes a recording and returns its file. Each part is "device SECONDS TEXT", "host SECONDS
// TEXT" or "ended SECONDS REASON".
func taken(t *testing.T, device string, whole bool, parts ...string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `{"time":"2026-01-02T03:04:00Z","device":%q,"host":"gw","transport":"devices","remote_addr":"192.0.2.7:4711","epoch":7,"whole":%v}`+"\n", device, whole)
	for _, part := range parts {
		f := strings.SplitN(part, " ", 3)
		if f[0] == "ended" {
			fmt.Fprintf(&b, `{"time":"2026-01-02T03:04:%sZ","ended":%q}`+"\n", f[1], f[2])
			continue
		}
		fmt.Fprintf(&b, `{"time":"2026-01-02T03:04:%sZ","from":%q,"bytes":"%x"}`+"\n", f[1], f[0], f[2])
	}
	name := filepath.Join(t.TempDir(), "recording.jsonl")
	if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReplay(t *testing.T) {
	const (
		login    = "device 00.1 ##,imei:359586015829802,A;"
		load     = "host 00.2 LOAD"
		beat     = "device 01 359586015829802;"
		on       = "host 01 ON"
		position = "device 02 imei:359586015829802,tracker,1;imei:3595860"
		more     = "device 02.5 15829802,help me,2;"
		gone     = "ended 05 client_closed"
		gps103   = `protocol = "gps103"`
		data     = `{ expect = { topic = "memory:data", json = { payload = "imei:359586015829802,tracker,1" } } },
  { expect = { topic = "memory:data", json = { payload = "imei:359586015829802,help me,2", kind = "help me" } } },`
	)
	for _, c := range []struct {
		name     string
		devices  string // settings of the transport
		device   string
		whole    bool
		parts    []string
		settings string // of the test
		steps    string
		want     string // of the failure; empty if the test passes
	}{
		{"login and data", gps103, "359586015829802", true, []string{login, load, beat, on, position, more, gone}, "", data, ""},
		{"all at once", gps103, "359586015829802", true, []string{"device 01 ##,imei:359586015829802,A;359586015829802;", "host 01 LO", "host 01.2 ADO", "host 02 N", gone}, "", "", ""},
		{"no steps", gps103, "359586015829802", true, []string{login, load, position, more}, "", "", ""},
		{"in the middle", gps103, "359586015829802", false, []string{beat, on, position, more, gone}, "", data, ""},
		{"another response", gps103, "359586015829802", true, []string{login, "host 00.2 HELLO"}, "", "", `replayed as recorded: line 3: the host sent something else, in its first byte
recorded: "HELLO", hex 48454c4c4f
sent now: "LOAD", hex 4c4f4144`},
		{"a response is missing", gps103, "359586015829802", true, []string{login, load, "host 01 ON"}, "", "", `replayed as recorded: line 4: the host didn't send the recorded bytes, after 4 equal bytes
recorded: "LOADON", hex 4c4f41444f4e
sent now: "LOAD", hex 4c4f4144
a step that makes the host send them may be missing; ignore_host = true compares nothing`},
		{"a response too many", gps103, "359586015829802", true, []string{login, load, beat, gone}, "", "", `replayed as recorded: at the end the host has sent more than recorded, after 4 equal bytes
recorded: "LOAD", hex 4c4f4144
sent now: "LOADON", hex 4c4f41444f4e`},
		{"the host is ignored", gps103, "359586015829802", true, []string{login, "host 00.2 HELLO", beat, position, more, gone}, "ignore_host = true", data, ""},
		{"another device", gps103, "359586015829803", true, []string{login, load}, "", "", `replayed as recorded: line 2: the recording is of the device "359586015829803", but a frame names the device "359586015829802"`},
		{"a command", gps103, "359586015829802", true, []string{login, load, "host 01.5 **,imei:359586015829802,B;", position, more, gone}, "", `{ input = { topic = "memory:commands", cmd = "B", device = "359586015829802", id = "c-1" } },
  { expect = { topic = "memory:results", json = { id = "c-1", state = "sent" } } }, ` + data, ""},
		{"a step fails", gps103, "359586015829802", true, []string{login, load, "host 03 **,imei:359586015829802,B;"}, "", `{ expect = { topic = "memory:results", json = { id = "c-1", state = "sent" } } },`, `replayed as recorded: expected on memory:results
  {"id":"c-1","state":"sent"}
got nothing`},
		{"more than the steps expect", gps103, "359586015829802", true, []string{login, load, position, more, gone}, "", `{ expect = { topic = "memory:data" } },`, "replayed as recorded: memory:data has more than the steps expect:\n"},
		{"an address", "", "192.0.2.7", true, []string{"device 00 hel", "device 01 lo\r\nwor", gone}, "", `{ expect = { topic = "memory:data", json = { payload = "hello" } } },`, ""},
		{"a first frame", `identity = { by = "first-frame" }`, "d-1", true, []string{"device 00 d-", "device 01 1\nhello\n", gone}, "", `{ expect = { topic = "memory:data", json = { device = "d-1", payload = "hello" } } },`, ""},
		{"the beginning of a frame", `data = { partial = true }`, "192.0.2.7", true, []string{"device 00 hello\nwor", "device 01 ld", gone}, "", `{ expect = { topic = "memory:data", json = { payload = "hello" } } },
  { expect = { topic = "memory:data", json = { payload = "world", partial = true } } },`, ""},
		{"idle", `idle_timeout = "1m"`, "192.0.2.7", true, []string{"device 00 hello\n", "ended 05 idle_timeout"}, "", `{ wait = "1m" }, { expect = { topic = "memory:data" } },`, ""},
		{"data depend on how bytes arrive", `framing = "raw"`, "192.0.2.7", true, []string{"device 00 he", "device 01 l", "device 01.5 lo"}, "", "", `replayed byte by byte: the data differ from those of the recording as recorded
message 1
as recorded: 192.0.2.7 "he"
now: 192.0.2.7 "h"`},
		{"a wrong name", "", "d-1", true, []string{"device 00 hello\n"}, "", "", `replayed as recorded: the recording is of the device "d-1": not a device of this transport: "d-1" is not an IP address`},
		{"a wrong recording", "", "192.0.2.7", true, []string{"device 01 hello\n", "device 00 hello\n"}, "", "", "reading the recording: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := taken(t, c.device, c.whole, c.parts...)
			r := runReplayed(t, c.devices, file, c.settings, c.steps)
			switch {
			case r.Failure == nil && c.want != "":
				t.Errorf("it passed; want\n%s", c.want)
			case r.Failure != nil && c.want == "":
				t.Errorf("%s\n%s", r.Failure.Message, r.Log)
			case r.Failure != nil && r.Failure.Message != c.want && !(strings.HasSuffix(c.want, "\n") || strings.HasSuffix(c.want, ": ")):
				t.Errorf("%s\nwant\n%s", r.Failure.Message, c.want)
			case r.Failure != nil && !strings.HasPrefix(r.Failure.Message, c.want):
				t.Errorf("%s\nwant\n%s", r.Failure.Message, c.want)
			}
		})
	}
}

func runReplayed(t *testing.T, devices, file, settings, steps string) scenario.Result {
	t.Helper()
	text := fmt.Sprintf(`
[transport.devices]
type = "tcp"
%s
[transport.memory]
[pipeline.data]
from = "devices:data"
handler = "passthrough"
to = "memory:data"
[pipeline.commands]
from = "memory:commands"
handler = { type = "deliver", devices = "devices" }
to = "memory:results"
[[test]]
name = "replay"
replay = %q
%s
steps = [
  %s
]
`, devices, file, settings, steps)
	setup := scenario.Setup{In: bubble.Under(t), Timeout: await.Patience, Level: slog.LevelWarn}
	var err error
	if setup.Config, _, err = configs.Parse("c.toml", []byte(text), configs.Options{}); err != nil {
		t.Fatal(err)
	}
	return scenario.Run(&setup.Config.Tests[0], setup)
}

// A file that is no recording, is too large or isn't there fails the test.
func TestReplayOfAWrongFile(t *testing.T) {
	folder := t.TempDir()
	for name, c := range map[string]struct {
		size int64
		text string
		want string
	}{
		"empty": {0, "", "reading the recording: " + folder + "/empty: the recording is empty"},
		"html":  {0, "<html>", "reading the recording: " + folder + "/html: line 1: not a line of a recording: "},
		"large": {100 << 20, "{}", "reading the recording: " + folder + "/large has 104857600 bytes; allowed: up to 16777216; leave out lines at its end"},
		"none":  {-1, "", "reading the recording: open " + folder + "/none: no such file or directory"},
	} {
		path := filepath.Join(folder, name)
		if c.size >= 0 {
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, max(c.size, int64(len(c.text)))); err != nil {
				t.Fatal(err)
			}
		}
		r := runReplayed(t, "", path, "", "")
		if r.Failure == nil || !strings.HasPrefix(r.Failure.Message, c.want) {
			t.Errorf("%s: %+v, want %s", name, r.Failure, c.want)
		}
	}
}
