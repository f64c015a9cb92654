package endtoend

import (
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	_ "modernc.org/sqlite"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// TestAStopWithAnOutcomeThatIsNotRecorded stops a host that knows how a command ended and can't
// record it, because another process keeps its ledger locked. Such a stop isn't clean, and says
// so; unless the ledger can be written to again in time.
func TestAStopWithAnOutcomeThatIsNotRecorded(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	broker := testenv.Broker(t)
	for name, c := range map[string]struct {
		shutdown string
		inTime   bool
		code     int
		attempt  int
	}{
		"not in time": {"4s", false, exitUnclean, 2},
		"in time":     {"2m", true, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder, url := t.TempDir(), broker.VHost(t)
			file, port, admin := exampleFile(t, folder, `type = "deliver", `, `type = "deliver", reply = true, timeout = "5m", `, `"30s"`, `"`+c.shutdown+`"`)
			run := func(log string) *testenv.Program {
				host := testenv.Launch(t, folder, log, []string{"AMQP_URL=" + url}, filepath.Join(bin, "pentrough"), "run", "-c", file)
				testenv.AwaitReady(t, admin, host.Ended)
				return host
			}
			host := run("host-1.log")
			device, lines := dialDevice(t, port, "127.9.0.2")
			testenv.AwaitSessions(t, admin, 1, host.Ended)
			ch := channel(t, url)
			if err := ch.Publish("device.commands", "127.9.0.2", true, false, amqp.Publishing{
				MessageId: "c-1", Body: []byte(`{"device":"127.9.0.2","cmd":"open"}`),
			}); err != nil {
				t.Fatal(err)
			}
			await.Receive(t, "the command at its device", lines)
			unlock := lock(t, filepath.Join(folder, "ledger.db"))
			if _, err := io.WriteString(device, "opened\n"); err != nil {
				t.Fatal(err)
			}
			host.Says(t, "the ledger doesn't work")
			if err := host.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if c.inTime {
				host.Says(t, "still stopping")
				unlock()
			}
			<-host.Ended
			if got := host.Cmd.ProcessState.ExitCode(); got != c.code {
				t.Errorf("exit code %d, want %d", got, c.code)
			}
			if says := strings.Contains(host.Output(t), `1 outcome isn't recorded (id "c-1")`); says == c.inTime {
				t.Errorf("the host says\n%s", host.Output(t))
			}
			unlock()

			host = run("host-2.log")
			device, lines = dialDevice(t, port, "127.9.0.2")
			go func() {
				for line := range lines { // again, where the outcome wasn't recorded
					_, _ = io.WriteString(device, line+"ed\n")
				}
			}()
			results, err := ch.Consume("results", "", true, false, false, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			var r struct {
				ID, State, Reply string
				Attempt          int
			}
			d := await.Receive(t, "the result", results)
			if err := json.Unmarshal(d.Body, &r); err != nil || r.ID != "c-1" || r.Attempt != c.attempt {
				t.Errorf("%s, %v", d.Body, err)
			}
			host.End(t, syscall.SIGTERM)
		})
	}
}

// lock keeps all others from writing to a SQLite file until unlock is called.
func lock(t *testing.T, path string) (unlock func()) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "PRAGMA busy_timeout = 60000; BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	unlock = func() {
		_, _ = conn.ExecContext(context.Background(), "ROLLBACK")
		_ = conn.Close()
		_ = db.Close()
	}
	t.Cleanup(unlock)
	return unlock
}
