package serve

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "shell" {
		handlers.Register(handlers.Plugin{Name: "shell", Summary: "Runs what it is told.", Config: func() handlers.Config { return &shell{} }})
		Main("shell")
	}
	await.Main(m)
}

// shell is a handler that runs each message as a script, with the handler's own descriptors.
type shell struct{}

func (*shell) New(handlers.Env) (handlers.Handler, error) {
	return function(func(msg *message.Message) ([]*message.Message, error) {
		script := exec.CommandContext(msg.Context(), "sh", "-c", string(msg.Payload))
		script.Stdin, script.Stdout, script.Stderr = os.Stdin, os.Stdout, os.Stderr
		err := script.Run()
		return []*message.Message{message.NewMessage("x", []byte(script.ProcessState.String()))}, handlers.Drop(err)
	}), nil
}

func TestMainKeepsTheProtocolToItself(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "shell")
	cmd.Env = append(os.Environ(), "PENTROUGH_PLUGIN=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, lines: bufio.NewReader(out)}
	send := func(line string) {
		if _, err := io.WriteString(in, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	send(`{"type":"hello","versions":[1],"max_line":65536}`)
	if l := h.receive(); l["type"] != "hello" || l["name"] != "shell" {
		t.Errorf("%v", l)
	}
	h.wants(`{"type":"ready"}`)
	for _, s := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	run := func(script, want string) {
		t.Helper()
		payload, err := json.Marshal(script)
		if err != nil {
			t.Fatal(err)
		}
		send(`{"type":"request","id":1,"remaining_ms":60000,"message":{"id":"m","payload":` + string(payload) + `}}`)
		h.wants(want)
	}
	// A program of the handler has an empty standard input and the default signals. Its output
	// doesn't go to the host.
	run(`cat; echo printed`, `{"type":"response","id":1,"messages":[{"id":"x","payload":"exit status 0"}]}`)
	run(`kill -TERM $$; echo survived`, `{"type":"response","id":1,"error":{"kind":"drop","text":"signal: terminated"}}`)
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if said := stderr.String(); said != "printed\n" {
		t.Errorf("standard error has %q", said)
	}
}
