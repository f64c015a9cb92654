package testenv

import (
	"bufio"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sys/unix"
)

// bootTimeout is long because several nodes may boot at once on few cores.
const bootTimeout = 5 * time.Minute

//go:embed node.sh
var ownerScript string

// Node is a private broker that a test can kill and start again. Its methods are for one
// goroutine.
type Node struct {
	*Server
	// Folder has all files of the node. out and log/ in it show what the node did.
	Folder string

	cmd      *exec.Cmd
	commands io.WriteCloser
	replies  *bufio.Reader
}

// NewNode starts a private node and takes it down when the test ends.
func NewNode(t testing.TB) *Node {
	t.Helper()
	return newNode(t, FreePort)
}

func newNode(t testing.TB, pick func() (int, error)) *Node {
	t.Helper()
	n, err := startAt(pick)
	if err != nil {
		t.Fatalf("test broker: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("closing the test broker: %v", err)
		}
	})
	return n
}

// VHost makes a virtual host and returns its AMQP URL. The virtual host ends with the node.
func (n *Node) VHost(t testing.TB) string {
	t.Helper()
	name := vhostName(t)
	if err := n.vhosts.add(name); err != nil {
		t.Fatalf("adding virtual host %s: %v", name, err)
	}
	return vhostURL(n.url, name)
}

// Ctl runs rabbitmqctl against the node and returns what it printed.
func (n *Node) Ctl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := ctl(n.Folder, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Eval makes the node evaluate an Erlang expression, which must return ok.
func (n *Node) Eval(t testing.TB, expression string) {
	t.Helper()
	if err := eval(n.Folder, expression); err != nil {
		t.Fatal(err)
	}
}

// Kill ends the node with SIGKILL, as a crash of its machine would, and waits for its end.
func (n *Node) Kill(t testing.TB) { n.mustRun(t, "kill") }

// Stop ends the node in an orderly way and waits for its end.
func (n *Node) Stop(t testing.TB) { n.mustRun(t, "stop") }

func (n *Node) mustRun(t testing.TB, word string) {
	t.Helper()
	if _, err := n.askOwner(word); err != nil {
		t.Fatalf("test broker: %s: %v", word, err)
	}
}

// Start starts the node again on the same port and data, and waits until it accepts connections.
func (n *Node) Start(t testing.TB) {
	t.Helper()
	if err := n.boot(); err != nil {
		t.Fatalf("test broker: %v", err)
	}
}

// Restart is Stop and Start.
func (n *Node) Restart(t testing.TB) {
	t.Helper()
	n.Stop(t)
	n.Start(t)
}

// Start starts a node outside of a test. It ends with Close, or with this process.
func Start() (*Node, error) { return startAt(FreePort) }

// startAt starts a node on ports that pick chooses.
func startAt(pick func() (int, error)) (*Node, error) {
	// A port that was free a moment ago may be taken by the time the node binds it.
	var errs []error
	for range 3 {
		n, err := launch(pick)
		if err != nil {
			return nil, errors.Join(append(errs, err)...)
		}
		if err = n.boot(); err == nil {
			return n, nil
		}
		errs = append(errs, err, n.Close())
	}
	return nil, errors.Join(errs...)
}

// Close takes the node down and removes its folder.
func (n *Node) Close() error {
	if err := n.commands.Close(); err != nil {
		return err
	}
	return n.cmd.Wait()
}

func launch(pick func() (int, error)) (*Node, error) {
	bin, err := findScripts()
	if err != nil {
		return nil, err
	}
	var ports [3]int
	for i := range ports {
		if ports[i], err = pick(); err != nil {
			return nil, err
		}
	}
	folder, err := os.MkdirTemp("", "pentrough-rabbitmq-")
	if err != nil {
		return nil, err
	}
	env, err := writeNodeFiles(folder, ports[0], ports[1], ports[2])
	if err != nil {
		return nil, err
	}
	// This process may have inherited descriptors without close-on-exec, such as a lock of the
	// shell that started it. The node must not inherit them.
	if err := unix.CloseRange(3, 1<<30, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("marking inherited descriptors close-on-exec: %w", err)
	}
	cmd := exec.Command("sh", "-c", ownerScript, "rabbitmq-owner", folder, fmt.Sprint(ports[2]), bin)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	commands, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	replies, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting sh: %w", err)
	}
	return &Node{
		Server:   &Server{url: fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", ports[0]), vhosts: nodeHosts{folder: folder}},
		Folder:   folder,
		cmd:      cmd,
		commands: commands,
		replies:  bufio.NewReader(replies),
	}, nil
}

// writeNodeFiles writes the node's configuration and returns its environment, which rabbitmqctl
// needs too.
func writeNodeFiles(folder string, port, distPort, epmdPort int) ([]string, error) {
	in := func(name string) string { return filepath.Join(folder, name) }
	env := []string{
		"HOME=" + folder,
		"LC_ALL=C.UTF-8",
		"ERL_EPMD_ADDRESS=127.0.0.1",
		fmt.Sprintf("ERL_EPMD_PORT=%d", epmdPort),
		"ERL_CRASH_DUMP=" + in("crash.dump"),
		fmt.Sprintf("RABBITMQ_NODENAME=pentrough-%d@localhost", port),
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", distPort),
		"RABBITMQ_MNESIA_BASE=" + in("data"),
		"RABBITMQ_LOG_BASE=" + in("log"),
		"RABBITMQ_PID_FILE=" + in("pid"),
		"RABBITMQ_CONFIG_FILE=" + in("rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + in("advanced.config"),
		"RABBITMQ_CONF_ENV_FILE=" + in("rabbitmq-env.conf"),
		"RABBITMQ_GENERATED_CONFIG_DIR=" + in("config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + in("enabled_plugins"),
		// An idle node leaves the cores to the tests.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+sbwt none +sbwtdcpu none +sbwtdio none",
	}
	conf := fmt.Sprintf("listeners.tcp.1 = 127.0.0.1:%d\ndisk_free_limit.absolute = 1MB\nvm_memory_high_watermark.absolute = 4GB\n", port)
	return env, errors.Join(
		os.WriteFile(in("environment"), []byte(strings.Join(env, "\n")+"\n"), 0o600),
		os.WriteFile(in("rabbitmq.conf"), []byte(conf), 0o600),
		os.WriteFile(in("rabbitmq-env.conf"), nil, 0o600),
		os.WriteFile(in("enabled_plugins"), []byte("[].\n"), 0o600),
		os.WriteFile(in(".erlang.cookie"), []byte(rand.Text()), 0o400),
	)
}

// FreePort returns a port on which nothing listens. The port is below the kernel's range for
// outgoing connections. So no other program takes it before the test uses it, or while the test's
// listener is down. While this process runs, no other test gets the port.
func FreePort() (int, error) {
	for range 100 {
		i, err := rand.Int(rand.Reader, big.NewInt(10_000))
		if err != nil {
			return 0, err
		}
		port := 20_000 + int(i.Int64())
		if !reservePort(port) {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no free port between 20000 and 29999")
}

// reservedPorts keeps the sockets whose names reserve the ports of this process.
var reservedPorts struct {
	sync.Mutex
	names []net.Listener
}

// reservePort reports whether no other test has the port. The reservation is a socket name that
// the kernel gives to one process until the process ends.
func reservePort(port int) bool {
	name, err := net.Listen("unix", fmt.Sprintf("@pentrough-test-port-%d", port))
	if err != nil {
		return false
	}
	reservedPorts.Lock()
	defer reservedPorts.Unlock()
	reservedPorts.names = append(reservedPorts.names, name)
	return true
}

// askOwner sends the owner a command and returns its answer.
func (n *Node) askOwner(word string) (string, error) {
	if _, err := fmt.Fprintln(n.commands, word); err != nil {
		return "", err
	}
	line, err := n.replies.ReadString('\n')
	return strings.TrimSpace(line), err
}

func (n *Node) boot() error {
	if _, err := n.askOwner("start"); err != nil {
		return err
	}
	for deadline := time.Now().Add(bootTimeout); ; time.Sleep(50 * time.Millisecond) {
		conn, err := amqp.Dial(n.url)
		if err == nil {
			// Another node may have the port. Then this node ends, or doesn't run yet.
			if err = errors.Join(conn.Close(), evalOnce(n.Folder, "true = rabbit:is_running(), ok")); err == nil {
				return nil
			}
		}
		alive, tellErr := n.askOwner("alive")
		if tellErr != nil || alive != "yes" || time.Now().After(deadline) {
			out, _ := os.ReadFile(filepath.Join(n.Folder, "out"))
			return fmt.Errorf("booting RabbitMQ: %w; it printed:\n%s", err, out)
		}
	}
}
