package attack

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"sync"
	"time"
)

// bareBuffer is the size of the read buffer of each connection to the bare accept loop.
const bareBuffer = 4096

// bare is the server that the host is compared with. It accepts all connections, and has a
// goroutine and a buffer for each. A device that sends HELLO NAME is known by that name. A command
// that is posted for that name is written to it.
type bare struct {
	token string

	mu      sync.Mutex
	devices map[string]net.Conn
}

// runBare serves three addresses until the process is killed.
func runBare(needs string) error {
	var at endpoints
	if err := json.Unmarshal([]byte(needs), &at); err != nil {
		return err
	}
	b := &bare{token: at.Token, devices: map[string]net.Conn{}}
	failed := make(chan error)
	for addr, serve := range map[string]func(net.Conn){at.Devices: b.serveDevice, at.Web: b.serveWeb, at.Admin: b.serveWeb} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		go func() { failed <- acceptAll(l, serve) }()
	}
	fmt.Println("ready")
	return <-failed
}

func acceptAll(l net.Listener, serve func(net.Conn)) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // no descriptors are left
			time.Sleep(5 * time.Millisecond)
			continue
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
}

// serveDevice registers a device by its first line and drops everything else that it sends.
func (b *bare) serveDevice(conn net.Conn) {
	r := bufio.NewReaderSize(conn, bareBuffer)
	line, err := r.ReadSlice('\n')
	if err != nil {
		return
	}
	var name string
	if _, err := fmt.Sscanf(string(line), hello, &name); err != nil {
		return
	}
	b.mu.Lock()
	b.devices[name] = conn
	b.mu.Unlock()
	for err == nil {
		_, err = r.Discard(max(1, r.Buffered()))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.devices[name] == conn {
		delete(b.devices, name)
	}
}

// barePattern finds the device and the text of a command at the beginning of a body.
var barePattern = regexp.MustCompile(`"device":"([^"]*)","cmd":"([^"]*)"`)

// serveWeb answers requests until the caller closes the connection. It answers 401 without the
// token, 503 for a command whose device isn't connected, and 200 otherwise.
func (b *bare) serveWeb(conn net.Conn) {
	r := bufio.NewReaderSize(conn, bareBuffer)
	for {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		begin := make([]byte, min(max(request.ContentLength, 0), bareBuffer))
		if _, err := io.ReadFull(request.Body, begin); err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, request.Body); err != nil {
			return
		}
		status := http.StatusOK
		if request.Method == http.MethodPost {
			switch command := barePattern.FindSubmatch(begin); {
			case b.token != "" && request.Header.Get("Authorization") != "Bearer "+b.token:
				status = http.StatusUnauthorized
			case len(command) > 0 && !b.writeToDevice(string(command[1]), command[2]):
				status = http.StatusServiceUnavailable
			}
		}
		if _, err := fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n", status, http.StatusText(status)); err != nil || request.Close {
			return
		}
	}
}

// writeToDevice writes a line to a device and reports whether that succeeded within a second.
func (b *bare) writeToDevice(name string, line []byte) bool {
	b.mu.Lock()
	conn := b.devices[name]
	b.mu.Unlock()
	if conn == nil || conn.SetWriteDeadline(time.Now().Add(time.Second)) != nil {
		return false
	}
	_, err := conn.Write(append(line, "\r\n"...))
	return err == nil
}
