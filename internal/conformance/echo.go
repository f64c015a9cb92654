package conformance

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// echoChecks returns the checks for echo plugins.
func echoChecks() []Check {
	return []Check{
		{Name: "echo-hello", About: "window and features", Rule: ruleEchoHello, Echo: true, run: checkEchoHello},
		{Name: "config", About: "each problem with the config has its key", Rule: ruleProblems, Echo: true, run: checkConfig},
		{Name: "echo", About: "payload and metadata, both ways", Rule: ruleEcho, Echo: true, run: checkEcho},
		{Name: "messages", About: "none, several, and to another topic", Rule: ruleMessages, Echo: true, run: checkMessages},
		{Name: "errors", About: "the kinds of errors", Rule: ruleError, Echo: true, run: checkErrors},
		{Name: "order", About: "a request that waits doesn't delay others", Rule: ruleWindow, Echo: true, run: checkWindow},
		{Name: "cancel", About: "a cancelled request ends and has a response", Rule: ruleDeadline, Echo: true, run: checkCancel},
		{Name: "deadline", About: "a request ends at its deadline", Rule: ruleEcho, Echo: true, run: checkDeadline},
		{Name: "too-long", About: "no response is longer than the host accepts", Rule: ruleTooLong, Echo: true, run: checkTooLong},
		{Name: "log", About: "lines for the log", Rule: ruleLog, Echo: true, run: checkLog},
		{Name: "stdout", About: "printed text goes to standard error", Rule: ruleStdout, Echo: true, run: checkPrint},
		{Name: "drain-working", About: "drain waits for running requests", Rule: ruleDrain, Echo: true, run: checkDrainWorking},
		{Name: "end-working", About: "the end of standard input ends running requests", Rule: ruleEnd, Echo: true, run: checkEndWorking},
	}
}

// startEchoReady is startReady with the requirements for an echo plugin, which the later checks
// need.
func (t *trial) startEchoReady() {
	t.startReady()
	if t.window < 2 || !t.hasFeature("cancel") || !t.hasFeature("drain") {
		t.failRule(ruleEchoHello, "its window is %d, and its features are %q", t.window, t.features)
	}
}

func checkEchoHello(t *trial) {
	t.startEchoReady()
	t.endInput()
}

func checkConfig(t *trial) {
	for _, right := range []object{{}, {"limit": 0}, {"limit": 12}} {
		t.Config = right
		t.startReady()
		t.endInput()
	}
	for _, c := range []struct {
		config object
		key    string
	}{
		{object{"limit": -1}, "limit"}, {object{"limit": "many"}, "limit"}, {object{"limit": 1.5}, "limit"}, {object{"limt": 1}, "limt"}, {object{"limit": 1, "threshold": object{"high": 1}}, "threshold"},
	} {
		t.Config = c.config
		t.launch()
		t.write(t.helloOf(1))
		l := t.receive("`hello` or `refuse`")
		if l.kind == "hello" {
			l = t.receive("`refuse`")
		}
		if l.kind != "refuse" {
			t.fail("it answered the config %[2]s with a `%[1]s`", l.kind, formatValue(c.config))
		}
		_, problems, err := l.refusal()
		t.failOn(err)
		if len(problems) != 1 || problems[0].key != c.key {
			t.fail("the problems with the config %s are %+v; expected one with the key %q", formatValue(c.config), problems, c.key)
		}
		t.checkExitOutput(ruleRefuse, -1)
	}
}

// texts are payloads that a plugin easily damages.
var texts = []string{
	"", "open", " open \n", `{"t":21,"s":"\u00e9 \"quoted\" \\"}`, "é ü 漢字", "😀 \U0010ffff", "\x00\x01\x1f\x7f", "\u2028\u2029", "\ufeffmark", "\ufffd", "a\r\nb\tc", "</script>&amp;", "\xff\xfe", "open\x80", "\xed\xa0\x80",
	strings.Repeat("long ", 20_000),
}

func checkEcho(t *trial) {
	t.startEchoReady()
	for _, text := range texts {
		m := metadataOf("device", "10.0.0.7")
		t.checkEchoed(t.roundTrip(messageObject([]byte(text), m)), []byte(text), m)
	}
	m := metadataOf("", "no key", "empty", "", "header.Own-Name", "é 漢字 😀", "quote\"", "\\ \n \u2028", "typ", "reading")
	t.checkEchoed(t.roundTrip(messageObject([]byte("open"), m)), []byte("open"), m)
	t.checkEchoed(t.roundTrip(object{"id": "m"}), nil, map[string]string{})
	// The same bytes in the other encoding.
	t.checkEchoed(t.roundTrip(object{"id": "m", "payload_b64": "b3Blbg=="}), []byte("open"), map[string]string{})
	t.next++
	t.pending[t.next] = true
	t.send(fmt.Sprintf(`{"type":"request","id":%d,"remaining_ms":60000,"message":{"id":"m","payload":"\ud83d\ude00\u0000\/é","metadata":{"\u006bey":"\ud83d\ude00"}}}`, t.next))
	t.checkEchoed(t.receiveResponse(), []byte("😀\x00/é"), map[string]string{"key": "😀"})
	t.checkQuiet()
	t.endInput()
}

func checkMessages(t *trial) {
	t.startEchoReady()
	for n, copies := range []string{"0", "1", "2", "3"} {
		m := metadataOf("echo.copies", copies, "echo.to", "memory:elsewhere")
		r := t.roundTrip(messageObject([]byte("open"), m))
		if r.failed || len(r.messages) != n {
			t.fail("the response has %d messages and the error %q %q; expected %d messages", len(r.messages), r.kind, r.text, n)
		}
		for _, produced := range r.messages {
			t.checkSameMessage(produced, []byte("open"), m)
			if produced.to != "memory:elsewhere" || produced.id != "" {
				t.fail("a message goes to %q and has the id %q", produced.to, produced.id)
			}
		}
	}
	if r := t.roundTrip(messageObject([]byte("open"), nil)); len(r.messages) != 1 || r.messages[0].to != "" {
		t.fail("a message has a destination that the request doesn't name: %+v", r.messages)
	}
	t.endInput()
}

func checkErrors(t *trial) {
	t.startEchoReady()
	for _, kind := range []string{"retryable", "permanent", "drop", "unavailable"} {
		for _, after := range []int64{0, 1, 1500} {
			m := metadataOf("echo.error", kind)
			if after > 0 {
				m["echo.retry_after_ms"] = fmt.Sprint(after)
			}
			r := t.roundTrip(messageObject([]byte("the door is locked: \"é\""), m))
			if !r.failed || (r.kind != kind && (kind != "retryable" || r.kind != "")) || !strings.Contains(r.text, "the door is locked: \"é\"") || r.retryAfter != after {
				t.fail("the error is %q %q, with a retry after %d ms", r.kind, r.text, r.retryAfter)
			}
		}
	}
	t.endInput()
}

func checkWindow(t *trial) {
	t.startEchoReady()
	waiting := t.sendRequest(messageObject([]byte("wait"), metadataOf("echo.wait", "cancel")))
	for range 5 {
		id := t.sendRequest(messageObject([]byte("open"), nil))
		if r := t.receiveResponse(); r.id != id {
			t.fail("it wrote the response to %d; expected the one to %d", r.id, id)
		}
	}
	t.write(object{"type": "cancel", "id": waiting})
	t.receiveResponse()
	t.endInput()
}

func checkCancel(t *trial) {
	t.startEchoReady()
	var ids []int64
	for range 2 {
		ids = append(ids, t.sendRequest(messageObject([]byte("wait"), metadataOf("echo.wait", "cancel"))))
	}
	slices.Reverse(ids)
	for _, id := range ids {
		t.write(object{"type": "cancel", "id": id})
		if r := t.receiveResponse(); r.id != id {
			t.fail("it wrote the response to %d; expected the one to %d, which was cancelled", r.id, id)
		}
		// A second cancel changes nothing.
		t.write(object{"type": "cancel", "id": id})
	}
	t.checkQuiet()
	t.roundTrip(t.sampleMessage())
	t.endInput()
}

func checkDeadline(t *trial) {
	t.startEchoReady()
	t.write(t.request(messageObject([]byte("wait"), metadataOf("echo.wait", "cancel")), time.Millisecond))
	t.receiveResponse()
	t.write(t.request(messageObject([]byte("wait"), metadataOf("echo.wait", "cancel")), 100*time.Millisecond))
	t.receiveResponse()
	t.roundTrip(t.sampleMessage())
	t.endInput()
}

func checkTooLong(t *trial) {
	t.startEchoReady()
	for _, c := range []struct {
		size int
		fits bool
	}{{hostMaxLine - 4096, true}, {hostMaxLine, false}, {4 * hostMaxLine, false}} {
		r := t.roundTrip(messageObject([]byte("open"), metadataOf("echo.size", fmt.Sprint(c.size))))
		if c.fits && (len(r.messages) != 1 || len(r.messages[0].payload) != c.size) {
			t.fail("a payload of %d bytes, which the host accepts, became the error %q %q", c.size, r.kind, shorten(r.text))
		} else if !c.fits && (!r.failed || r.kind != "permanent") {
			t.fail("a payload of %d bytes became the error %q %q", c.size, r.kind, shorten(r.text))
		}
	}
	t.checkQuiet()
	t.endInput()
}

func checkLog(t *trial) {
	t.startEchoReady()
	for _, level := range []string{"debug", "info", "warn", "error"} {
		t.logged = nil
		message := messageObject([]byte("the sensor is \"slow\"\n"+level), metadataOf("echo.log", level))
		message["id"] = "m-" + level
		t.roundTrip(message)
		found := slices.ContainsFunc(t.logged, func(l line) bool {
			fields, _ := l.keys["fields"].(map[string]any)
			return l.keys["level"] == level && l.keys["text"] == "the sensor is \"slow\"\n"+level && fields["id"] == "m-"+level
		})
		if !found {
			t.fail("there is no `log` of level %s with the text and the field `id` before the response", level)
		}
	}
	t.endInput()
}

func checkPrint(t *trial) {
	t.startEchoReady()
	for _, text := range []string{"printed by the way", "{\"type\":\"response\",\"id\":1}", "no json {"} {
		t.roundTrip(messageObject([]byte("open"), metadataOf("echo.print", text)))
		t.waitForStderr(text)
	}
	t.checkQuiet()
	t.endInput()
}

func checkDrainWorking(t *trial) {
	t.startEchoReady()
	waiting := t.sendRequest(messageObject([]byte("wait"), metadataOf("echo.wait", "cancel")))
	t.write(object{"type": "drain"})
	t.write(object{"type": "cancel", "id": waiting})
	t.receiveResponse()
	t.checkDrained()
}

func checkEndWorking(t *trial) {
	t.startEchoReady()
	t.sendRequest(messageObject([]byte("wait"), metadataOf("echo.wait", "cancel")))
	t.endInput()
}
