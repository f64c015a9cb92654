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
	// hostWindow and hostMaxLine are what the host of the checks says of itself.
	hostWindow  = 8
	hostMaxLine = 256 << 10
	// startMaxLine is how long a line may be before `ready`.
	startMaxLine = 1 << 20
	// long is the time that a request has for which no deadline is wanted.
	long = time.Hour
)

// trial is one check of one subject: the process that runs, and what is open with it. Its methods end the check at the first thing that is wrong.
type trial struct {
	Subject
	ctx  context.Context
	rule string

	p *process
	hello
	ready   bool
	heard   bool // it wrote a line since the host did
	next    int64
	pending map[int64]bool
	logged  []line
}

func (t *trial) fail(format string, args ...any) { t.breaks(t.rule, format, args...) }

func (t *trial) breaks(rule, format string, args ...any) {
	panic(&Failure{What: fmt.Sprintf(format, args...), Rule: rule})
}

// check ends the trial with an error, and the rule that it knows.
func (t *trial) check(err error) {
	if err == nil {
		return
	}
	if b, ok := errors.AsType[*broken](err); ok {
		t.breaks(b.rule, "%s", b.what)
	}
	t.fail("%v", err)
}

// launch starts the program anew.
func (t *trial) launch() {
	t.stop()
	p, err := start(t.Command, t.Env)
	if err != nil {
		t.fail("starting %q: %v", t.Command[0], err)
	}
	t.p, t.hello, t.ready, t.next, t.pending, t.logged = p, hello{maxLine: startMaxLine}, false, 0, map[int64]bool{}, nil
}

// stop ends what runs, whatever it does.
func (t *trial) stop() {
	if t.p != nil {
		t.p.kill()
	}
}

// exchange is what was said to the process and by it.
func (t *trial) exchange() []string {
	if t.p == nil {
		return nil
	}
	lines := t.p.log
	for text := range strings.Lines(t.p.diagnostics()) {
		lines = append(lines, "! "+cut(strings.TrimRight(text, "\r\n")))
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
		panic(err) // the checks write nothing that isn't JSON
	}
	return b.Bytes()
}

// send writes a line that is whatever the check wants it to be.
func (t *trial) send(text string) {
	t.heard = false
	t.p.note("> %s", cut(text))
	if err := t.p.write([]byte(text+"\n"), t.Patience); err != nil {
		t.gone(fmt.Sprintf("it took no more lines (%v)", err))
	}
}

func (t *trial) write(o object) { t.send(strings.TrimSuffix(string(encode(o)), "\n")) }

func (t *trial) greeting(versions ...int) object {
	return object{
		"type": "hello", "versions": versions, "host": object{"name": "check", "version": "v0.0.0"}, "pipeline": "check", "config": t.Config, "window": hostWindow,
		"max_line": hostMaxLine, "log_level": "debug",
	}
}

// gone tells that the process can't be spoken with any more, and how it ended.
func (t *trial) gone(what string) {
	select {
	case <-t.p.exited:
		what += ": it has ended, " + t.p.cmd.ProcessState.String()
	case <-time.After(time.Second):
	}
	t.fail("%s", what)
}

// receive returns the next line that isn't blank, a log line, or of an unknown type. want is what is waited for.
func (t *trial) receive(want string) line {
	l, ok := t.receiveOrEnd(want)
	if !ok {
		t.gone("it ended its standard output where " + want + " was waited for")
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
				t.breaks(ruleLine, "%d bytes of a line, and no line feed within %v, where %s was waited for", n, t.Patience, want)
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
		t.p.note("< %s", cut(strings.TrimSuffix(string(raw), "\n")))
		l, err := parse(raw, longest)
		t.check(err)
		switch l.kind {
		case "log":
			t.check(l.log())
			t.logged = append(t.logged, l)
		case "hello", "ready", "refuse", "response", "pong", "drained":
			return l, true
		}
	}
}

// begin launches the program and greets it as the host does, until it is ready.
func (t *trial) begin() {
	t.launch()
	t.write(t.greeting(1))
	t.meet()
}

// refused ends the check, as the plugin refuses the config.
func (t *trial) refused(l line) {
	text, problems, err := l.refusal()
	t.check(err)
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

// meet takes the plugin's hello and ready.
func (t *trial) meet() {
	l := t.receive("`hello`")
	if l.kind == "refuse" {
		t.refused(l)
	}
	if l.kind != "hello" {
		t.breaks(ruleFirst, "its first line is a `%s`", l.kind)
	}
	h, err := l.hello()
	t.check(err)
	t.hello = h
	switch l := t.receive("`ready`"); l.kind {
	case "ready":
		t.ready = true
	case "refuse":
		t.refused(l)
	default:
		t.breaks(ruleStart, "a `%s` comes where `ready` was waited for", l.kind)
	}
}

// payload is a message with these bytes and metadata.
func payload(data []byte, metadata map[string]string) object {
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

// sample is the subject's own message.
func (t *trial) sample() object { return payload(t.Message, map[string]string{"message_id": "m"}) }

// request is a request with the next id, which is pending from now on.
func (t *trial) request(message object, remaining time.Duration) object {
	t.next++
	t.pending[t.next] = true
	return object{"type": "request", "id": t.next, "remaining_ms": remaining.Milliseconds(), "message": message}
}

// ask writes a request and returns its id.
func (t *trial) ask(message object) int64 {
	t.write(t.request(message, long))
	return t.next
}

// answer takes the next line, which must be a response that is waited for.
func (t *trial) answer() response {
	l := t.receive("a `response`")
	if l.kind == "drained" {
		t.breaks(ruleDrain, "`drained` comes before all is answered")
	}
	if l.kind != "response" {
		t.breaks(ruleOnce, "a `%s` comes where a `response` was waited for", l.kind)
	}
	r, err := l.response()
	t.check(err)
	if !t.pending[r.id] {
		t.breaks(ruleOnce, "a response to %d, which is answered already, or was never asked", r.id)
	}
	delete(t.pending, r.id)
	return r
}

// call asks and takes the answer.
func (t *trial) call(message object) response {
	id := t.ask(message)
	r := t.answer()
	if r.id != id {
		t.breaks(ruleOnce, "the response to %d, where only %d was unanswered", r.id, id)
	}
	return r
}

// quiet asks for a pong, before which nothing else may come: no response is written twice.
func (t *trial) quiet() {
	t.next++
	t.write(object{"type": "ping", "id": t.next})
	l := t.receive("`pong`")
	if l.kind == "response" {
		t.breaks(ruleOnce, "a response, where no request is unanswered")
	}
	if id, err := l.whole("id", 1, rulePing); l.kind != "pong" || err != nil || id != t.next {
		t.breaks(rulePing, "a `%s` with the id %s comes where the `pong` of %d was waited for", l.kind, spell(l.keys["id"]), t.next)
	}
}

// end closes standard input and waits for the exit with status 0.
func (t *trial) end() {
	t.p.note("- standard input was closed")
	t.p.stdin.Close()
	t.leaves(ruleEnd, 0)
}

// leaves waits for the end of the process. What it still writes must be lines of the protocol, and nothing that was to come once comes twice.
func (t *trial) leaves(rule string, status int) {
	old := t.rule
	t.rule = rule
	for {
		l, ok := t.receiveOrEnd("end of its standard output")
		if !ok {
			break
		}
		if l.kind == "response" {
			r, err := l.response()
			t.check(err)
			if !t.pending[r.id] {
				t.breaks(ruleOnce, "a response to %d, which is answered already, or was never asked", r.id)
			}
			delete(t.pending, r.id)
			continue
		}
		t.fail("a `%s` comes where only the end was waited for", l.kind)
	}
	t.exits(status)
	t.rule = old
}

// exits waits for the end of the process and holds its status.
func (t *trial) exits(status int) {
	timer := time.NewTimer(t.Patience)
	defer timer.Stop()
	select {
	case <-t.p.exited:
	case <-timer.C:
		t.fail("it didn't exit within %v", t.Patience)
	case <-t.ctx.Done():
		t.fail("%v", context.Cause(t.ctx))
	}
	t.p.note("- it has ended: %v", t.p.cmd.ProcessState)
	if code := t.p.cmd.ProcessState.ExitCode(); status >= 0 && code != status {
		t.fail("it ended with %v, not with status %d", t.p.cmd.ProcessState, status)
	}
}

// says waits until the program has written a text to its standard error; an empty text is anything.
func (t *trial) says(text string) {
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
				t.fail("its standard error says nothing")
			}
			t.fail("its standard error doesn't say %q", text)
		case <-t.ctx.Done():
			t.fail("%v", context.Cause(t.ctx))
		}
	}
}

// with returns metadata of an echo plugin's message, made of keys and values in turn.
func with(pairs ...string) map[string]string {
	m := map[string]string{"message_id": "m"}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// same holds a produced message against what it should be an echo of.
func (t *trial) same(r response, data []byte, metadata map[string]string) {
	if r.failed || len(r.messages) != 1 {
		t.fail("the response has %d messages, error %q %q", len(r.messages), r.kind, r.text)
	}
	t.sameMessage(r.messages[0], data, metadata)
}

func (t *trial) sameMessage(m produced, data []byte, metadata map[string]string) {
	if !bytes.Equal(m.payload, data) {
		t.breaks(ruleBytes, "the payload %s came back as %s", cut(fmt.Sprintf("%q", data)), cut(fmt.Sprintf("%q", m.payload)))
	}
	if !maps.Equal(m.metadata, metadata) {
		t.breaks(ruleMessage, "the metadata %s came back as %s", spell(metadata), spell(m.metadata))
	}
}
