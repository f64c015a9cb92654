package endtoend

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

// dialogue is what a simulated device says and hears. A text that begins with 0x has hexadecimal
// digits; its white space doesn't count.
type dialogue struct {
	protocol, device string
	// login, and the response to it.
	login, welcome string
	// position is data. ack is the response to it, or "".
	position, ack string
	// command is the JSON of the command without its device. wire is what the device receives, and
	// answer is what it sends back.
	command, wire, answer string
	// reply is the answer in the result.
	reply string
}

var dialogues = []dialogue{
	{
		protocol: "gps103", device: "359586015829802",
		login: "##,imei:359586015829802,A;", welcome: "LOAD",
		position: "imei:359586015829802,tracker,0809231929,13554900601,F,112909.397,A,2234.4669,N,11354.3287,E,0.11,;",
		command:  `"cmd":"B"`, wire: "**,imei:359586015829802,B;",
		answer: "imei:359586015829802,stockade,;", reply: "imei:359586015829802,stockade,",
	}, {
		protocol: "gt06", device: "123456789012345",
		login: "0x7878 0D 01 0123456789012345 0001 8CDD 0D0A", welcome: "0x7878 05 01 0001 D9DC 0D0A",
		position: "0x7878 1F 12 0B081D112E10 CF 027AC7EB 0C465849 00 148F 01CC 00 287D 001FB8 0003 8081 0D0A",
		command:  `"cmd":"RESET#"`, wire: "0x7878 12 80 0A 00000001 524553455423 0002 0001 1500 0D0A",
		answer: "0x7878 0E 15 06 00000001 4F4B 0002 0005 5BB7 0D0A", reply: "0x15 06 00000001 4F4B 0002 0005",
	}, {
		protocol: "teltonika", device: "356307042441013",
		login: "0x000F333536333037303432343431303133", welcome: "0x01",
		position: "0x0000000000000036 08010000016B40D8EA30010000000000000000000000000000000105021503010101425E0F01F10000601A014E000000000000000001 0000C7CF",
		ack:      "0x00000001",
		command:  `"cmd":"getinfo"`, wire: "0x00000000 0000000F 0C010500000007676574696E666F01 00004312",
		answer: "0x00000000 0000000A 0C 01 06 00000002 4F4B 01 0000 DA8A", reply: "0x0C 01 06 00000002 4F4B 01",
	}, {
		protocol: "modbus-dtu", device: "dtu-17/1",
		login:    "REGdtu-17ping",
		position: "0x01 03 02 002A 399B",
		command:  `"cmd":"030000000A","encoding":"hex"`, wire: "0x01 03 0000 000A C5CD",
		answer: "ping0x01 03 02 002A 399B", reply: "0x01 03 02 002A",
	},
}

// unhex returns the bytes of a text of a dialogue.
func unhex(t *testing.T, text string) string {
	t.Helper()
	plain, digits, ok := strings.Cut(text, "0x")
	if !ok {
		return text
	}
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return plain + string(b)
}

// A few lines of TOML with a ready-made protocol connect real devices: they log in, their data is
// in a table, and a command has the answer that belongs to it.
func TestReadyMadeProtocols(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	for _, d := range dialogues {
		t.Run(d.protocol, func(t *testing.T) {
			t.Parallel()
			d.hold(t, bin)
		})
	}
}

// talk is a host with a protocol, and a connection of a device to it.
type talk struct {
	*testing.T
	host       *testenv.Program
	admin, web string // ports
	conn       net.Conn
	table      string // the file of the database
}

// startTalk starts a host. settings are those of the transport, in addition to the protocol.
func startTalk(t *testing.T, bin, protocol, settings string) *talk {
	t.Helper()
	folder := t.TempDir()
	devices, web, adm := testenv.Port(t), testenv.Port(t), testenv.Port(t)
	file, table := filepath.Join(folder, "host.toml"), filepath.Join(folder, "data.db")
	text := fmt.Appendf(nil, `[host]
admin = "127.0.0.1:%s"
[transport]
trackers = { type = "tcp", listen = "127.0.0.1:%s", protocol = %q%s }
web      = { type = "http", listen = "127.0.0.1:%s" }
[pipeline]
commands  = { from = "web:/commands", handler = { type = "deliver", devices = "trackers", reply = true, timeout = "1m" } }
positions = { from = "trackers:data", handler = { type = "sql", url = "sqlite:%s", history = { data = "positions" } } }
`, adm, devices, protocol, settings, web, table)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	host := testenv.Launch(t, folder, "host.log", nil, filepath.Join(bin, "pentrough"), "run", "-c", file)
	testenv.AwaitReady(t, adm, host.Ended)
	conn, err := net.Dial("tcp", "127.0.0.1:"+devices)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(await.Patience)); err != nil {
		t.Fatal(err)
	}
	return &talk{t, host, adm, web, conn, table}
}

func (k *talk) say(text string) {
	k.Helper()
	if _, err := io.WriteString(k.conn, unhex(k.T, text)); err != nil {
		k.Fatal(err)
	}
}

func (k *talk) hear(want string) {
	k.Helper()
	want = unhex(k.T, want)
	got := make([]byte, len(want))
	if n, err := io.ReadFull(k.conn, got); err != nil || string(got) != want {
		k.Fatalf("the device received %x, %v; want %x", got[:n], err, want)
	}
}

// command sends a command; its result comes later.
func (k *talk) command(body string) <-chan device.Result {
	result := make(chan device.Result, 1)
	go func() { result <- postCommand(k.T, k.web, body) }()
	return result
}

// hold starts a host and plays the device.
func (d dialogue) hold(t *testing.T, bin string) {
	k := startTalk(t, bin, d.protocol, "")
	k.say(d.login)
	k.hear(d.welcome)
	k.say(d.position)
	k.hear(d.ack)
	testenv.AwaitSessions(t, k.admin, 1, k.host.Ended)

	result := k.command(fmt.Sprintf(`{"device":%q,%s}`, d.device, d.command))
	k.hear(d.wire)
	k.say(d.answer)
	r := await.Receive(t, "the result", result)
	if r.State != device.StateAnswered || r.Device != d.device || string(r.Reply) != unhex(t, d.reply) {
		t.Errorf("the result is %+v with %x", r, r.Reply)
	}
	k.host.End(t, syscall.SIGTERM)
	db, err := sql.Open("sqlite", k.table)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var name string
	var rows int
	if err := db.QueryRow("SELECT min(device), count(*) FROM positions").Scan(&name, &rows); err != nil || name != d.device || rows != 1 {
		t.Errorf("the table has %d rows of %q: %v", rows, name, err)
	}
}

// meterFrame is a frame of DL/T 645. Names end with the number of the meter.
func meterFrame(meter byte, body string) string {
	frame := []byte{0x68, meter, 0, 0, 0, 0, 0, 0x68}
	frame = append(frame, body...)
	sum := byte(0)
	for _, b := range frame {
		sum += b
	}
	return string(append(frame, sum, 0x16))
}

// The meters behind a concentrator are devices of their own: each has its data, its commands and
// its answers, and all go offline with the connection.
func TestMetersBehindAConcentrator(t *testing.T) {
	t.Parallel()
	k := startTalk(t, programs(t), "dlt645", ", identity = { attach = 500 }")
	const asked, energy = "\x11\x04\x33\x33\x34\x33", "\x91\x05\x33\x33\x34\x33\x42"
	for meter := range byte(3) {
		k.say(meterFrame(meter, energy))
	}
	testenv.AwaitSessions(t, k.admin, 3, k.host.Ended)
	for _, meter := range []byte{2, 0, 1} {
		name := fmt.Sprintf("%012d", meter)
		result := k.command(fmt.Sprintf(`{"device":%q,"cmd":"1133333433","encoding":"hex"}`, name))
		k.hear(meterFrame(meter, asked))
		other := (meter + 1) % 3
		k.say(meterFrame(other, energy) + meterFrame(meter, energy))
		r := await.Receive(t, "the result", result)
		if want := meterFrame(meter, energy); r.State != device.StateAnswered || r.Device != name || !strings.Contains(want, string(r.Reply)) {
			t.Errorf("the result is %+v with %x, want %x", r, r.Reply, want)
		}
	}
	k.conn.Close()
	testenv.AwaitSessions(t, k.admin, 0, k.host.Ended)
	if r := await.Receive(t, "the result", k.command(`{"device":"000000000001","cmd":"1133333433","encoding":"hex"}`)); r.State != device.StateOffline {
		t.Errorf("the result is %+v", r)
	}
	k.host.End(t, syscall.SIGTERM)
	db, err := sql.Open("sqlite", k.table)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for meter := range byte(3) {
		var rows int
		name := fmt.Sprintf("%012d", meter)
		if err := db.QueryRow("SELECT count(*) FROM positions WHERE device = ?", name).Scan(&rows); err != nil || rows != 2 {
			t.Errorf("the table has %d rows of %s: %v", rows, name, err)
		}
	}
}

// postCommand sends a command by HTTP and returns its result.
func postCommand(t *testing.T, port, body string) (r device.Result) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:"+port+"/commands", strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return r
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return r
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil {
		r, err = device.ParseResult(text)
	}
	if err != nil {
		t.Errorf("the answer %d %s: %v", res.StatusCode, text, err)
	}
	return r
}
