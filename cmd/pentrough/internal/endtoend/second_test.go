package endtoend

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// TestASecondHostOnTheSameStoreWaits starts a host whose store another one uses. It takes neither
// commands nor devices, names the other one, and begins to work when that one has stopped.
func TestASecondHostOnTheSameStoreWaits(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	folder, url := t.TempDir(), testenv.Broker(t).VHost(t)
	file, _, admin := exampleFile(t, folder)
	run := func(log, file string) *testenv.Program {
		return testenv.Launch(t, folder, log, []string{"AMQP_URL=" + url}, filepath.Join(bin, "pentrough"), "run", "-c", file)
	}
	first := run("host-1.log", file)
	testenv.AwaitReady(t, admin, first.Ended)
	file, port, admin := exampleFile(t, t.TempDir(), `"pentrough.db"`, fmt.Sprintf("%q", filepath.Join(folder, "ledger.db")))
	name := fmt.Sprintf("process %d", first.Cmd.Process.Pid)
	waiting := run("host-2.log", file)
	waiting.Says(t, name)
	waiting.End(t, syscall.SIGTERM) // a stop needn't wait for the store
	other := run("host-3.log", file)
	other.Says(t, name)
	await.That(t, "/readyz of the second host names the first", func() (any, bool) {
		r, err := http.Get("http://127.0.0.1:" + admin + "/readyz")
		if err != nil {
			return err, false
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		return fmt.Sprint(string(text), err), r.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(text), name)
	})
	if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
		conn.Close()
		t.Error("the second host takes devices")
	}
	ch := channel(t, url)
	consumers := func() int {
		q, err := ch.QueueDeclarePassive("device.commands", true, false, false, false, amqp.Table{})
		if err != nil {
			t.Fatal(err)
		}
		return q.Consumers
	}
	await.That(t, "the first host consumes", func() (any, bool) { n := consumers(); return n, n > 0 })
	if n := consumers(); n != 1 {
		t.Errorf("%d consumers", n)
	}
	first.End(t, syscall.SIGTERM)
	testenv.AwaitReady(t, admin, other.Ended)
	await.That(t, "the second host consumes", func() (any, bool) { n := consumers(); return n, n > 0 })
	other.End(t, syscall.SIGTERM)
}
