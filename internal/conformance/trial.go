package conformance

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// hostWindow and hostMaxLine are the limits in the hello of the checks' host.
	hostWindow  = 8
	hostMaxLine = 256 << 10
	// startMaxLine is the longest line before `ready`, in bytes.
	startMaxLine = 1 << 20
	// long is the time that a request has if the check isn't about the deadline.
	long = time.Hour
)

// trial is one check of one subject. It has the running process and its pending requests. Its
// methods end the check at the first failure.
type trial struct {
	Subject
	ctx  context.Context
	rule string

	p *process
	hello
	ready   bool
	heard   bool // it has written a line since the host's last one
	next    int64
	pending map[int64]bool
	logged  []line
}

func (t *trial) fail(format string, args ...any) { t.failRule(t.rule, format, args...) }

func (t *trial) failRule(rule, format string, args ...any) {
	panic(&Failure{What: fmt.Sprintf(format, args...), Rule: rule})
}

// failOn ends the check if err isn't nil, with the rule that the error names.
func (t *trial) failOn(err error) {
	if err == nil {
		return
	}
	if b, ok := errors.AsType[*lineError](err); ok {
		t.failRule(b.rule, "%s", b.what)
	}
	t.fail("%v", err)
}

// launch starts the program again.
func (t *trial) launch() {
	t.killProcess()
	p, err := startProcess(t.Command, t.Env)
	if err != nil {
		t.fail("starting %q: %v", t.Command[0], err)
	}
	t.p, t.hello, t.ready, t.next, t.pending, t.logged = p, hello{maxLine: startMaxLine}, false, 0, map[int64]bool{}, nil
}

// killProcess kills the running process, if there is one.
func (t *trial) killProcess() {
	if t.p != nil {
		t.p.kill()
	}
}

// exchange returns what was exchanged with the process.
func (t *trial) exchange() []string {
	if t.p == nil {
		return nil
	}
	lines := t.p.log
	for text := range strings.Lines(t.p.diagnostics()) {
		lines = append(lines, "! "+shorten(strings.TrimRight(text, "\r\n")))
	}
	return lines
}

// object is a JSON object of the host.
type object = map[string]any

func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // the checks encode only values that have a form in JSON
	}
	return b.Bytes()
}

// send writes any text as a line.
func (t *trial) send(text string) {
	t.heard = false
	t.p.noteEvent("> %s", shorten(text))
	if err := t.p.write([]byte(text+"\n"), t.Patience); err != nil {
		t.failEnded(fmt.Sprintf("it accepted no more lines (%v)", err))
	}
}

func (t *trial) write(o object) { t.send(strings.TrimSuffix(string(encode(o)), "\n")) }

func (t *trial) helloOf(versions ...int) object {
	return object{
		"type": "hello", "versions": versions, "host": object{"name": "check", "version": "v0.0.0"}, "pipeline": "check", "config": t.Config, "window": hostWindow,
		"max_line": hostMaxLine, "log_level": "debug",
	}
}

// failEnded ends the check because the process can't be reached any more, and says how it ended.
func (t *trial) failEnded(what string) {
	select {
	case <-t.p.exited:
		what += ": it has ended, " + t.p.cmd.ProcessState.String()
	case <-time.After(time.Second):
	}
	t.fail("%s", what)
}

// receive returns the next line. It skips blank lines, log lines and lines of unknown types. want
// describes the expected line.
func (t *trial) receive(want string) line {
	l, ok := t.receiveOrEnd(want)
	if !ok {
		t.failEnded("it closed its standard output; expected " + want)
	}
	return l
}

func (t *trial) receiveOrEnd(want string) (line, bool) {
	timer := time.NewTimer(t.Patience)
	defer timer.Stop()
	longest := hostMaxLine
	if !t.ready {
		longest = startMaxLine
	}
	for {
		var raw []byte
		var ok bool
		select {
		case raw, ok = <-t.p.lines:
		case <-timer.C:
			if n := t.p.unfinished(); n > 0 {
				t.failRule(ruleLine, "%d bytes of a line, and no line feed within %v; expected %s", n, t.Patience, want)
			}
			if !t.heard {
				t.fail("no %s within %v, and it wrote nothing: did it flush its standard output?", want, t.Patience)
			}
			t.fail("no %s within %v", want, t.Patience)
		case <-t.ctx.Done():
			t.fail("%v", context.Cause(t.ctx))
		}
		if !ok {
			return line{}, false
		}
		t.heard = true
		t.p.noteEvent("< %s", shorten(strings.TrimSuffix(string(raw), "\n")))
		l, err := parseLine(raw, longest)
		t.failOn(err)
		switch l.kind {
		case "log":
			t.failOn(l.log())
			t.logged = append(t.logged, l)
		case "hello", "ready", "refuse", "response", "pong", "drained":
			return l, true
		}
	}
}

// startReady starts the program and exchanges hello lines until the program is ready.
func (t *trial) startReady() {
	t.launch()
	t.write(t.helloOf(1))
	t.receiveHello()
}

// failRefused ends the check, because the plugin has refused the config.
func (t *trial) failRefused(l line) {
	text, problems, err := l.refusal()
	t.failOn(err)
	var why []string
	if text != "" {
		why = append(why, text)
	}
	for _, p := range problems {
		if p.key != "" {
			p.text = p.key + ": " + p.text
		}
		why = append(why, p.text)
	}
	panic(&Failure{What: "it refuses the config: " + strings.Join(why, "; "), Rule: t.rule, refused: true})
}

// receiveHello receives the plugin's hello and ready.
func (t *trial) receiveHello() {
	l := t.receive("`hello`")
	if l.kind == "refuse" {
		t.failRefused(l)
	}
	if l.kind != "hello" {
		t.failRule(ruleFirst, "its first line is a `%s`", l.kind)
	}
	h, err := l.hello()
	t.failOn(err)
	t.hello = h
	switch l := t.receive("`ready`"); l.kind {
	case "ready":
		t.ready = true
	case "refuse":
		t.failRefused(l)
	default:
		t.failRule(ruleStart, "it wrote a `%s`; expected `ready`", l.kind)
	}
}

// messageObject returns a message with these bytes and metadata.
func messageObject(data []byte, metadata map[string]string) object {
	m := object{"id": "m", "metadata": metadata}
	if utf8.Valid(data) {
		m["payload"] = string(data)
	} else {
		m["payload_b64"] = base64.StdEncoding.EncodeToString(data)
	}
	if metadata == nil {
		delete(m, "metadata")
	}
	return m
}

// sampleMessage returns the subject's own message.
func (t *trial) sampleMessage() object {
	return messageObject(t.Message, map[string]string{"message_id": "m"})
}

// request returns a request with the next id, which is pending from now on.
func (t *trial) request(message object, remaining time.Duration) object {
	t.next++
	t.pending[t.next] = true
	return object{"type": "request", "id": t.next, "remaining_ms": remaining.Milliseconds(), "message": message}
}

// sendRequest writes a request and returns its id.
func (t *trial) sendRequest(message object) int64 {
	t.write(t.request(message, long))
	return t.next
}

// receiveResponse receives the next line, which must be the response to a pending request.
func (t *trial) receiveResponse() response {
	l := t.receive("a `response`")
	if l.kind == "drained" {
		t.failRule(ruleDrain, "it wrote `drained` before all responses")
	}
	if l.kind != "response" {
		t.failRule(ruleOnce, "it wrote a `%s`; expected a `response`", l.kind)
	}
	r, err := l.response()
	t.failOn(err)
	if !t.pending[r.id] {
		t.failRule(ruleOnce, "a response to %d, which has a response already or was never requested", r.id)
	}
	delete(t.pending, r.id)
	return r
}

// roundTrip sends a request and receives its response.
func (t *trial) roundTrip(message object) response {
	id := t.sendRequest(message)
	r := t.receiveResponse()
	if r.id != id {
		t.failRule(ruleOnce, "it wrote the response to %d; only %d waited for one", r.id, id)
	}
	return r
}

// checkQuiet sends a ping and accepts only the pong. Another response would be a second one to the
// same request.
func (t *trial) checkQuiet() {
	t.next++
	t.write(object{"type": "ping", "id": t.next})
	l := t.receive("`pong`")
	if l.kind == "response" {
		t.failRule(ruleOnce, "it wrote a response, and no request waits for one")
	}
	if id, err := l.intField("id", 1, rulePing); l.kind != "pong" || err != nil || id != t.next {
		t.failRule(rulePing, "it wrote a `%s` with the id %s; expected the `pong` of %d", l.kind, formatValue(l.keys["id"]), t.next)
	}
}

// endInput closes standard input and waits for an exit with status 0.
func (t *trial) endInput() {
	t.p.noteEvent("- standard input was closed")
	t.p.stdin.Close()
	t.checkExitOutput(ruleEnd, 0)
}

// checkExitOutput waits for the end of the process. The lines until then must follow the protocol,
// and no request may get a second response.
func (t *trial) checkExitOutput(rule string, status int) {
	old := t.rule
	t.rule = rule
	for {
		l, ok := t.receiveOrEnd("end of its standard output")
		if !ok {
			break
		}
		if l.kind == "response" {
			r, err := l.response()
			t.failOn(err)
			if !t.pending[r.id] {
				t.failRule(ruleOnce, "a response to %d, which has a response already or was never requested", r.id)
			}
			delete(t.pending, r.id)
			continue
		}
		t.fail("it wrote a `%s`; expected the end", l.kind)
	}
	t.checkExitStatus(status)
	t.rule = old
}

// checkExitStatus waits for the end of the process and checks its status.
func (t *trial) checkExitStatus(status int) {
	timer := time.NewTimer(t.Patience)
	defer timer.Stop()
	select {
	case <-t.p.exited:
	case <-timer.C:
		t.fail("it didn't exit within %v", t.Patience)
	case <-t.ctx.Done():
		t.fail("%v", context.Cause(t.ctx))
	}
	t.p.noteEvent("- it has ended: %v", t.p.cmd.ProcessState)
	if code := t.p.cmd.ProcessState.ExitCode(); status >= 0 && code != status {
		t.fail("it ended with %v, not with status %d", t.p.cmd.ProcessState, status)
	}
}

// waitForStderr waits until the program has written the text to its standard error. An empty text
// matches anything.
func (t *trial) waitForStderr(text string) {
	deadline := time.NewTimer(t.Patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if said := t.p.diagnostics(); strings.TrimSpace(said) != "" && strings.Contains(said, text) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			if text == "" {
				t.fail("its standard error is empty")
			}
			t.fail("its standard error doesn't contain %q", text)
		case <-t.ctx.Done():
			t.fail("%v", context.Cause(t.ctx))
		}
	}
}

// metadataOf returns metadata from alternating keys and values.
func metadataOf(pairs ...string) map[string]string {
	m := map[string]string{"message_id": "m"}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// checkEchoed compares the message of a response with the message that it should echo.
func (t *trial) checkEchoed(r response, data []byte, metadata map[string]string) {
	if r.failed || len(r.messages) != 1 {
		t.fail("the response has %d messages and the error %q %q; expected one message", len(r.messages), r.kind, r.text)
	}
	t.checkSameMessage(r.messages[0], data, metadata)
}

func (t *trial) checkSameMessage(m outputMessage, data []byte, metadata map[string]string) {
	if !bytes.Equal(m.payload, data) {
		t.failRule(ruleBytes, "it returned the payload %s as %s", shorten(fmt.Sprintf("%q", data)), shorten(fmt.Sprintf("%q", m.payload)))
	}
	if !maps.Equal(m.metadata, metadata) {
		t.failRule(ruleMessage, "it returned the metadata %s as %s", formatValue(metadata), formatValue(m.metadata))
	}
}
