// Package testenv gives tests real RabbitMQ brokers: private nodes on free ports of 127.0.0.1,
// with their own data folders. The tests need no broker service on the machine, and don't disturb
// one.
//
// A test that only needs a broker calls [Broker] and takes a virtual host of its own from it:
//
//	url := testenv.Broker(t).VHost(t)
//
// A test that kills, stops or throttles a broker takes a private one with [NewNode]. A node boots
// in 6 to 16 seconds. So the packages of one test run share a node if the run is started with
//
//	go run ./internal/testenv/withbroker go test ./...
//
// Otherwise each test process starts its own. PENTROUGH_TEST_AMQP_URL names a running broker to
// use instead. Then its management API (PENTROUGH_TEST_MANAGEMENT_URL, or port 15672 of the same
// machine) makes the virtual hosts.
package testenv

import (
	"crypto/rand"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// The variables that name a broker for a test run.
const (
	// AMQPURL names a running broker.
	AMQPURL = "PENTROUGH_TEST_AMQP_URL"
	// ManagementURL names that broker's management API, with user and password.
	ManagementURL = "PENTROUGH_TEST_MANAGEMENT_URL"
	// NodeFolder is the folder of the node that withbroker started; rabbitmqctl reaches the node
	// through it.
	NodeFolder = "PENTROUGH_TEST_RABBITMQ_FOLDER"
)

var shared = sync.OnceValues(func() (*Server, error) {
	url := os.Getenv(AMQPURL)
	switch folder := os.Getenv(NodeFolder); {
	case url == "":
		// Nobody closes the node. It ends when this process ends, even after a crash.
		n, err := Start()
		if err != nil {
			return nil, err
		}
		n.Server.node = n
		return n.Server, nil
	case folder != "":
		return &Server{url: url, vhosts: nodeHosts{folder: folder}}, nil
	default:
		return existingServer(url, os.Getenv(ManagementURL))
	}
})

// Broker returns the broker that the whole process shares, and starts it if necessary. A test must
// not stop or throttle it.
func Broker(t testing.TB) *Server {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatalf("test broker: %v", err)
	}
	return s
}

// Server is a running broker.
type Server struct {
	url    string
	vhosts vhosts
	// node keeps the shared node from being garbage collected: without its pipe the node would
	// end.
	node *Node
}

// URL is the AMQP URL of the default virtual host, with user and password.
func (s *Server) URL() string { return s.url }

// VHost makes a virtual host for one test and returns its AMQP URL. It is deleted when the test
// ends.
func (s *Server) VHost(t testing.TB) string {
	t.Helper()
	name := vhostName(t)
	if err := s.vhosts.add(name); err != nil {
		t.Fatalf("adding virtual host %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := s.vhosts.remove(name); err != nil {
			t.Errorf("deleting virtual host %s: %v", name, err)
		}
	})
	return vhostURL(s.url, name)
}

// vhosts adds and removes virtual hosts in which the URL's user may do everything.
type vhosts interface {
	add(name string) error
	remove(name string) error
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9]+`)

// vhostName returns a name that is readable in the broker's log and needs no escaping in a URL or
// an Erlang term.
func vhostName(t testing.TB) string {
	name := notInName.ReplaceAllString(t.Name(), "-")
	return name[:min(len(name), 60)] + "-" + strings.ToLower(rand.Text()[:8])
}

// VHostOf returns the virtual host that an AMQP URL of this package names, as rabbitmqctl's -p
// takes it.
func VHostOf(amqpURL string) string {
	return amqpURL[strings.LastIndexByte(amqpURL, '/')+1:]
}

func vhostURL(server, name string) string {
	return server[:strings.LastIndexByte(server, '/')+1] + name
}
