package attack

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv"
)

const (
	token = "open-sesame"
	// commandsQueue and resultsQueue are queues that the host declares.
	commandsQueue, resultsQueue = "commands", "results"
	// statusQueue receives the events of devices.
	statusQueue = "status"
	// frameLimit is the longest frame of a device, the framing's default.
	frameLimit = 4096
)

// hostFile is the configuration of a typical host: each bound has its default. Only the rate of
// new names is that of a host that has run for more than ten minutes.
const hostFile = `
[host]
name  = "attacked"
admin = "ADMIN"

[store]
type = "sqlite"
path = "LEDGER"

[transport.broker]
type = "amqp"
url  = "AMQP"

[transport.web]
type   = "http"
listen = "WEB"
token  = "TOKEN"

[transport.devices]
type     = "tcp"
listen   = "DEVICES"
identity = { by = "first-frame", pattern = '^HELLO (\S+)$' }
new_names = { at_start = 1000 }

[middleware.poison]
to = "broker:poison"

[pipeline.commands]
from       = "broker:commands"
middleware = ["poison", "dedup", "retry"]
handler    = { type = "deliver", devices = "devices" }
to         = "broker:results"

[pipeline.web]
from       = "web:/commands"
middleware = ["dedup"]
handler    = { type = "deliver", devices = "devices" }

[pipeline.status]
from = "devices:events"
to   = "broker:status"
`

// target is the server that is attacked: the host or the bare accept loop.
type target struct {
	endpoints
	side    string
	process *testenv.Program
	// launch starts the process, and waits until it is ready.
	launch func()
	// broker is the proxy between the host and the broker, or nil if the broker stays up.
	broker *testenv.Proxy
}

// restart ends the process and starts it again.
func (g *target) restart(t *testing.T) {
	if g.side == hostSide {
		g.process.End(t, syscall.SIGTERM)
	} else {
		_ = g.process.Cmd.Process.Kill() // the process may have ended
		<-g.process.Ended
	}
	g.launch()
}

func (g *target) pid() int { return g.process.Cmd.Process.Pid }

func freeEndpoints(t *testing.T, a attack) endpoints {
	e := endpoints{Web: "127.0.0.1:" + testenv.Port(t), Devices: "127.0.0.1:" + testenv.Port(t), Admin: "127.0.0.1:" + testenv.Port(t), Token: token}
	if a.noToken {
		e.Token = ""
	}
	return e
}

// startHost starts the host. If `validate` refuses the attack's part of the file, it returns the
// reason.
func startHost(t *testing.T, programs string, a attack) (g *target, refused string) {
	t.Helper()
	folder, url := t.TempDir(), testenv.Broker(t).VHost(t)
	g = &target{endpoints: freeEndpoints(t, a), side: hostSide}
	g.AMQP = url
	if a.cut {
		g.broker, url = testenv.Through(t, url)
	}
	tokenLine := fmt.Sprintf("token  = %q\n", g.Token)
	if a.noToken {
		tokenLine = ""
	}
	text := strings.NewReplacer("ADMIN", g.Admin, "LEDGER", filepath.Join(folder, "ledger.db"), "AMQP", url, "WEB", g.Web, "token  = \"TOKEN\"\n", tokenLine,
		"DEVICES", g.Devices).Replace(hostFile) + a.extra
	file, program := filepath.Join(folder, "host.toml"), filepath.Join(programs, "pentrough")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "validate", "-c", file).CombinedOutput(); err != nil {
		if a.extra == "" {
			t.Fatalf("validate: %v\n%s", err, out)
		}
		return nil, string(out)
	}
	starts := 0
	g.launch = func() {
		starts++
		g.process = launchLimited(t, folder, fmt.Sprintf("host-%d.log", starts), nil, a.descriptors, program, "run", "-c", file)
		_, admin, _ := strings.Cut(g.Admin, ":")
		testenv.AwaitReady(t, admin, g.process.Ended)
	}
	g.launch()
	return g, ""
}

// startBare starts the bare accept loop.
func startBare(t *testing.T, a attack) *target {
	t.Helper()
	folder := t.TempDir()
	g := &target{endpoints: freeEndpoints(t, a), side: bareSide}
	starts := 0
	g.launch = func() {
		starts++
		g.process = launchRole(t, folder, fmt.Sprintf("bare-%d.log", starts), bareRole, g.endpoints, a.descriptors)
		g.process.Says(t, "ready")
	}
	g.launch()
	return g
}
