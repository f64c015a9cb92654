// Package presence runs hosts of which one keeps the table of devices in a database, alone and
// with the example for Django around it, and kills everything that takes part.
package presence

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // to look into the database

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// The fleet of TestPresence. PENTROUGH_PRESENCE_ROUNDS asks for more rounds, each with every
// trouble once; in every second one the broker is down for longer than a host may be silent.
const (
	presenceDevices = 100
	presenceMoves   = 40               // of several devices each, in a round
	presenceSilence = 25 * time.Second // hosts are heard every 10 s
)

// Two hosts whose devices come, go and move, and a third with the table, over a broker and a
// database; every one of them is killed and started again during the test, and one host stands
// still. In the end one host is dead, and the table says of each device what is true.
func TestPresence(t *testing.T) {
	t.Parallel()
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv("PENTROUGH_PRESENCE_ROUNDS")); err == nil {
		rounds = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	p := newPresenceRig(t, rand.New(rand.NewPCG(seed, 0)))
	for round := range rounds {
		p.move(presenceMoves / 4)
		p.hosts[0].kill()
		p.move(presenceMoves / 4)
		p.hosts[0].start()
		p.node.Kill(t)
		p.move(presenceMoves / 4)
		if round%2 == 1 { // longer than a host may be silent
			<-time.After(presenceSilence + 3*time.Second)
		}
		p.node.Start(t)
		p.table.kill()
		p.database.Kill(t)
		p.move(presenceMoves / 4)
		p.table.start()
		p.database.Start(t)
		p.converges("after all were back")
	}
	p.hosts[1].signal(syscall.SIGSTOP) // what it takes in afterwards is elsewhere by then
	for _, where := range []int{-1, 1, 0} {
		for _, d := range p.devices {
			d.moveTo(where)
		}
		p.connected(where)
	}
	p.hosts[1].signal(syscall.SIGCONT)
	p.converges("after a host stood still")
	for _, d := range p.devices {
		d.moveTo(p.rng.IntN(len(p.hosts)))
	}
	p.converges("before a host died for good")
	if said := p.table.said(); strings.Contains(said, "a host is silent") {
		t.Error("a host was taken for lost that was there")
	}
	p.hosts[1].kill()
	p.converges("after a host died for good")
	if !strings.Contains(p.table.said(), "a host is silent") {
		t.Error("nobody missed the dead host")
	}
}

// presenceRig is all that takes part.
type presenceRig struct {
	t        *testing.T
	rng      *rand.Rand
	node     *testenv.Node
	database *testenv.Postgres
	hosts    [2]*presenceHost
	table    *presenceHost
	devices  []*presenceDevice
	rows     *sql.DB
}

func newPresenceRig(t *testing.T, rng *rand.Rand) *presenceRig {
	p := &presenceRig{t: t, rng: rng, node: testenv.NewNode(t), database: testenv.NewPostgres(t)}
	var err error
	if p.rows, err = sql.Open("pgx", p.database.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.rows.Close() })
	folder := t.TempDir()
	host := func(name, text string) *presenceHost {
		h := &presenceHost{t: t, folder: folder, name: name, port: testenv.Port(t), file: filepath.Join(folder, name+".toml")}
		text = fmt.Sprintf("[host]\nname = %q\nadmin = \"\"\n\n[transport.broker]\ntype = \"amqp\"\nurl = %q\n\n", name, p.node.URL()) + text
		if err := os.WriteFile(h.file, []byte(strings.ReplaceAll(text, "PORT", h.port)), 0o600); err != nil {
			t.Fatal(err)
		}
		h.start()
		return h
	}
	for i := range p.hosts {
		p.hosts[i] = host(fmt.Sprint("host-", i), `
[transport.devices]
type = "tcp"
listen = "127.0.0.1:PORT"

[pipeline.events]
from = "devices:events"
to = "broker:status"

[pipeline.data]
from = "devices:data"
to = "broker:status"
`)
	}
	p.table = host("table", fmt.Sprintf(`
[handler.status]
type = "sql"
url = %q
silence = %q

[middleware.poison]
to = "broker:status.poison"

[pipeline.status]
from = "broker:status"
middleware = ["poison", "retry"]
handler = "status"
`, p.database.URL, presenceSilence))
	life, end := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for i := range presenceDevices {
		d := &presenceDevice{rig: p, address: fmt.Sprintf("127.4.0.%d", i+1), want: -1, changed: make(chan struct{}, 1)}
		p.devices = append(p.devices, d)
		work.Go(func() { d.live(life) })
	}
	t.Cleanup(func() {
		end()
		work.Wait()
	})
	return p
}

// move lets devices connect, disconnect or move to another host, a number of times.
func (p *presenceRig) move(times int) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range times {
		for range 5 {
			p.devices[p.rng.IntN(len(p.devices))].moveTo(p.rng.IntN(len(p.hosts)+1) - 1)
		}
		<-tick.C
	}
}

// connected waits until all devices are connected to a host, which may stand still, or to none.
func (p *presenceRig) connected(where int) {
	p.t.Helper()
	await.That(p.t, fmt.Sprint("all devices are connected to host ", where), func() (any, bool) {
		n := 0
		for _, d := range p.devices {
			if d.at() == where {
				n++
			}
		}
		return n, n == len(p.devices)
	})
}

// truth is what each device's row has to say: the host that it is at, or "".
func (p *presenceRig) truth() map[string]string {
	all := map[string]string{}
	for _, d := range p.devices {
		d.mu.Lock()
		if d.want >= 0 && p.hosts[d.want].up() {
			all[d.address] = p.hosts[d.want].name
		} else if d.came {
			all[d.address] = ""
		}
		d.mu.Unlock()
	}
	return all
}

// converges waits until the table says what is true.
func (p *presenceRig) converges(when string) {
	p.t.Helper()
	await.That(p.t, "the table is true "+when, func() (any, bool) {
		wrong := p.wrong()
		return strings.Join(wrong, "\n"), len(wrong) == 0
	})
}

// wrong says in what the table isn't true.
func (p *presenceRig) wrong() (all []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	rows, err := p.rows.QueryContext(ctx, "SELECT device, online, host, reason, epoch, seq FROM devices")
	if err != nil {
		return []string{err.Error()}
	}
	defer rows.Close()
	truth := p.truth()
	for rows.Next() {
		var device, host, reason string
		var online bool
		var epoch, seq int64
		if err := rows.Scan(&device, &online, &host, &reason, &epoch, &seq); err != nil {
			return []string{err.Error()}
		}
		if want := truth[device]; online != (want != "") || online && host != want || online == (reason != "") {
			all = append(all, fmt.Sprintf("%s: online %v at %s %q since %d.%d, and it is at %q", device, online, host, reason, epoch, seq, want))
		}
		delete(truth, device)
	}
	if err := rows.Err(); err != nil {
		return []string{err.Error()}
	}
	for device, host := range truth {
		if host != "" {
			all = append(all, fmt.Sprintf("%s: no row, and it is at %q", device, host))
		}
	}
	return all
}

// presenceHost is a host that is killed and started.
type presenceHost struct {
	t                        *testing.T
	folder, name, port, file string
	env                      []string
	starts                   int
	running                  *testenv.Program
	logs                     []*testenv.Program
}

func (h *presenceHost) start() {
	h.starts++
	h.running = testenv.Launch(h.t, h.folder, fmt.Sprintf("%s-%d.log", h.name, h.starts), h.env, filepath.Join(testenv.Programs(h.t, "-race", "./cmd/pentrough"), "pentrough"), "run", "-c", h.file)
	h.logs = append(h.logs, h.running)
}

func (h *presenceHost) kill() {
	if err := h.running.Cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	<-h.running.Ended
	h.running = nil
}

func (h *presenceHost) signal(s syscall.Signal) {
	if err := h.running.Cmd.Process.Signal(s); err != nil {
		h.t.Fatal(err)
	}
}

func (h *presenceHost) up() bool { return h.running != nil }

// said is what all its runs logged.
func (h *presenceHost) said() string {
	var b strings.Builder
	for _, l := range h.logs {
		b.WriteString(l.Output(h.t))
	}
	return b.String()
}

// presenceDevice holds a connection to the host that it wants to be at.
type presenceDevice struct {
	rig     *presenceRig
	address string
	changed chan struct{}

	mu   sync.Mutex
	want int // the number of a host, or -1
	came bool
	conn *net.TCPConn
}

func (d *presenceDevice) moveTo(where int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.want == where {
		return
	}
	d.want = where
	if d.conn != nil {
		_ = d.conn.Close() // it doesn't ask whether its host has noticed
		d.conn = nil
	}
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// at is the host to which the device is connected, and has said something, or -1.
func (d *presenceDevice) at() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == nil {
		return -1
	}
	return d.want
}

// presencePause is how long a device is offline between two connections. Hosts can't tell the
// order of those with less than 20 ms between them (decision 0027).
const presencePause = 50 * time.Millisecond

// live connects, says something, and reads until the connection ends, again and again, with a
// pause as a modem makes it.
func (d *presenceDevice) live(ctx context.Context) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(d.address)}, Timeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { d.moveTo(-1) })
	for pause := time.NewTimer(0); ctx.Err() == nil; pause.Reset(presencePause) {
		<-pause.C
		d.mu.Lock()
		want := d.want
		d.mu.Unlock()
		if want < 0 {
			select {
			case <-d.changed:
			case <-ctx.Done():
			}
			continue
		}
		dialed, err := dialer.DialContext(ctx, "tcp", "127.0.0.1:"+d.rig.hosts[want].port)
		if err != nil {
			continue
		}
		conn := dialed.(*net.TCPConn)
		d.mu.Lock()
		d.came = true
		if _, err = io.WriteString(conn, "here\n"); err == nil && d.want == want {
			d.conn = conn
		} else {
			_ = conn.Close()
		}
		d.mu.Unlock()
		_, _ = io.Copy(io.Discard, conn)
		d.mu.Lock()
		if d.conn == conn {
			d.conn = nil
		}
		d.mu.Unlock()
		conn.Close()
	}
}
