package testenv_test

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/pentrough/pentrough/internal/testenv"
)

// child makes this binary start a node, name its folder, and wait to be killed.
const child = "PENTROUGH_TESTENV_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) != "" {
		node, err := testenv.Start()
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(node.Folder)
		select {}
	}
	goleak.VerifyTestMain(m)
}

func TestBrokerGivesEachTestItsOwnVirtualHost(t *testing.T) {
	broker := testenv.Broker(t)
	// The broker lives as long as the process, not as long as somebody holds it.
	runtime.GC()
	runtime.GC()
	for range 2 {
		t.Run("queue", func(t *testing.T) {
			ch := channel(t, broker.VHost(t))
			if _, err := ch.QueueDeclarePassive("q", false, false, false, false, nil); err == nil {
				t.Fatal("the virtual host isn't fresh")
			}
			ch = channel(t, broker.VHost(t))
			if _, err := ch.QueueDeclare("q", false, false, false, false, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestNodeKeepsWhatIsDurableThroughKillAndStop(t *testing.T) {
	node := testenv.NewNode(t)
	url := node.VHost(t)
	if _, err := channel(t, url).QueueDeclare("q", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(testing.TB){"kill": node.Kill, "stop": node.Stop} {
		// Mnesia has its log in memory for a while.
		node.Ctl(t, "eval", "mnesia:sync_log().")
		end(t)
		if conn, err := amqp.Dial(url); err == nil {
			conn.Close()
			t.Fatalf("after %s the node still takes connections", name)
		}
		node.Start(t)
		if _, err := channel(t, url).QueueDeclarePassive("q", true, false, false, false, nil); err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
	}
	if queues := node.Ctl(t, "list_queues", "--no-table-headers", "-p", testenv.VHostOf(url), "name"); strings.TrimSpace(queues) != "q" {
		t.Fatalf("rabbitmqctl says %q", queues)
	}
}

func TestNodeEndsWithTheProcessThatStartedIt(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	folder := strings.TrimSpace(line)
	if err != nil || !strings.HasPrefix(folder, os.TempDir()) {
		t.Fatalf("the child said %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, err := os.Stat(folder); err != nil {
			if !os.IsNotExist(err) {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the node's folder is still there")
		}
		<-time.After(50 * time.Millisecond)
	}
	procs, err := fs.Glob(os.DirFS("/proc"), "[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if line, err := os.ReadFile("/proc/" + p); err == nil && strings.Contains(string(line), folder) {
			t.Errorf("process %s still runs: %q", p, line)
		}
	}
}

func channel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
