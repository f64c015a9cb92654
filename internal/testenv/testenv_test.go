package testenv_test

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// child makes this binary start a node, name its folder, and wait to be killed.
const child = "PENTROUGH_TESTENV_CHILD"

// reserveChild makes it say whether it gets a port.
const reserveChild = "PENTROUGH_TESTENV_RESERVE"

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
	if port, err := strconv.Atoi(os.Getenv(reserveChild)); err == nil {
		fmt.Println(testenv.Reserve(port))
		return
	}
	await.Main(m)
}

func TestBrokerGivesEachTestItsOwnVirtualHost(t *testing.T) {
	broker := testenv.Broker(t)
	// The broker lives as long as the process, not as long as a test uses it.
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
	t.Parallel()
	node := testenv.NewNodeAt(t, takenFirst(t))
	url := node.VHost(t)
	if _, err := channel(t, url).QueueDeclare("q", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(testing.TB){"kill": node.Kill, "stop": node.Stop} {
		// Mnesia has its log in memory for a while.
		node.Eval(t, "mnesia:sync_log()")
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
	t.Parallel()
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
	await.That(t, "the node's folder is gone", func() (any, bool) {
		left, err := os.ReadDir(folder)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return left, err != nil
	})
	// The owner removes the folder, and ends after that.
	await.That(t, "no process of the node runs", func() (any, bool) {
		procs, err := fs.Glob(os.DirFS("/proc"), "[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		var running []string
		for _, p := range procs {
			if line, err := os.ReadFile("/proc/" + p); err == nil && strings.Contains(string(line), folder) {
				running = append(running, fmt.Sprintf("%s: %q", p, line))
			}
		}
		return running, len(running) == 0
	})
}

func TestADatabaseTakesAnotherPortIfItsOwnIsTaken(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t testing.TB, pick func() (int, error)){
		"PostgreSQL": func(t testing.TB, pick func() (int, error)) {
			server := testenv.NewPostgresAt(t, pick)
			query(t, "pgx", server.URL, server.Kill, server.Start)
		},
		"MariaDB": func(t testing.TB, pick func() (int, error)) {
			server := testenv.NewMySQLAt(t, pick)
			address := strings.Replace(strings.TrimPrefix(server.URL, "mysql://"), "@127", "@tcp(127", 1)
			query(t, "mysql", strings.Replace(address, "/", ")/", 1), server.Kill, server.Start)
		},
	} {
		t.Run(name, func(t *testing.T) { start(t, takenFirst(t)) })
	}
}

// query asks a database for what was stored before its server was killed and started again.
func query(t testing.TB, driver, address string, kill, start func(testing.TB)) {
	t.Helper()
	db, err := sql.Open(driver, address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range []string{"CREATE TABLE t (n INTEGER)", "INSERT INTO t VALUES (7)"} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	kill(t)
	if err := db.PingContext(t.Context()); err == nil {
		t.Error("the killed server takes connections")
	}
	start(t)
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT n FROM t").Scan(&n); err != nil || n != 7 {
		t.Errorf("read %d, %v", n, err)
	}
}

// takenFirst picks a port that something listens at, and then free ones.
func takenFirst(t testing.TB) (pick func() (int, error)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			conn.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		accepting.Wait()
	})
	taken := l.Addr().(*net.TCPAddr).Port
	return func() (int, error) {
		if taken == 0 {
			return testenv.FreePort()
		}
		port := taken
		taken = 0
		return port, nil
	}
}

// TestAProxyThatIsDownHasNoConnections takes the proxy down while connections through it are being
// made.
func TestAProxyThatIsDownHasNoConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 100 {
		t.Run("", func(t *testing.T) {
			proxy, url := testenv.Through(t, "amqp://"+l.Addr().String()+"/")
			through := strings.TrimSuffix(strings.TrimPrefix(url, "amqp://"), "/")
			var conns []net.Conn
			for range 3 {
				conn, err := net.Dial("tcp", through)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conns = append(conns, conn)
			}
			proxy.Down()
			for _, conn := range conns {
				if err := conn.SetReadDeadline(time.Now().Add(await.Patience)); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("waited %s until a connection through the proxy ended, which is down", await.Patience)
				}
			}
		})
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

func TestNobodyElseGetsAPort(t *testing.T) {
	mine := map[int]bool{}
	for range 50 {
		port, err := testenv.FreePort()
		if err != nil || mine[port] {
			t.Fatalf("port %d, %v, after %v", port, err, mine)
		}
		mine[port] = true
	}
	for port := range mine {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), reserveChild+"="+strconv.Itoa(port))
		if out, err := cmd.Output(); err != nil || string(out) != "false\n" {
			t.Errorf("another process reserves port %d: %s, %v", port, out, err)
		}
		break
	}
}
