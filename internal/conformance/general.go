package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// generalChecks returns the checks for every plugin.
func generalChecks() []Check {
	return []Check{
		{Name: "start", About: "hello and ready, and their content", Rule: ruleStart, run: checkStart},
		{Name: "schema", About: "the schema of the config", Rule: ruleSchema, run: checkSchema},
		{Name: "versions", About: "a host of another version is refused", Rule: ruleRefuse, run: checkVersions},
		{Name: "unknown", About: "unknown keys and types are ignored", Rule: ruleUnknown, run: checkUnknown},
		{Name: "spelling", About: "white space, order of keys, keys that occur twice", Rule: ruleNothing, run: checkSpelling},
		{Name: "responses", About: "each request has one response, with its id", Rule: ruleOnce, run: checkResponses},
		{Name: "bytes", About: "payloads as base64, empty or missing", Rule: ruleBytes, run: checkPayloads},
		{Name: "ping", About: "ping is answered", Rule: rulePing, run: checkPing},
		{Name: "late-cancel", About: "a cancel after the response is ignored", Rule: ruleCancel, run: checkLateCancel},
		{Name: "drain", About: "drain ends it after all responses", Rule: ruleDrain, run: checkDrain},
		{Name: "end", About: "the end of standard input ends it", Rule: ruleEnd, run: checkEnd},
		{Name: "broken-lines", About: "a line that breaks the protocol ends it", Rule: ruleBroken, run: checkBrokenLines},
		{Name: "long-lines", About: "lines of the greatest length, and longer ones", Rule: ruleBroken, run: checkLongLines},
	}
}

func checkStart(t *trial) {
	t.startReady()
	t.endInput()
}

func checkSchema(t *trial) {
	t.startReady()
	if t.schema == nil {
		panic(skip("its hello has no schema"))
	}
	text, err := json.Marshal(t.schema)
	t.failOn(err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	t.failOn(err)
	config, err := jsonschema.UnmarshalJSON(bytes.NewReader(encode(t.Config)))
	t.failOn(err)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	const place = "urn:schema"
	if err := c.AddResource(place, doc); err != nil {
		t.fail("reading the schema: %v", err)
	}
	compiled, err := c.Compile(place)
	if err != nil {
		t.fail("the schema isn't a JSON Schema: %v", err)
	}
	if err := compiled.Validate(config); err != nil {
		t.fail("the plugin accepts a config that its schema refuses: %v", err)
	}
}

func checkVersions(t *trial) {
	t.launch()
	t.write(t.helloOf(4_000_001, 4_000_000))
	l := t.receive("`refuse`")
	if l.kind != "refuse" {
		t.fail("it answered a host of another version with a `%s`", l.kind)
	}
	_, _, err := l.refusal()
	t.failOn(err)
	t.checkExitOutput(ruleRefuse, -1)
	// Unknown versions, and one that the plugin knows.
	t.launch()
	t.write(t.helloOf(4_000_000, 1))
	t.receiveHello()
}

func checkUnknown(t *trial) {
	t.launch()
	greeting := t.helloOf(1)
	greeting["x-check"], greeting["host"].(object)["x-check"] = []int{1}, object{}
	t.write(greeting)
	t.receiveHello()
	t.send(`{"type":"x-check","id":1,"message":null}`)
	t.send(`{"type":"X-CHECK"}`)
	message := t.sampleMessage()
	message["x-check"] = object{"payload": 1}
	request := t.request(message, long)
	request["x-check"] = nil
	t.write(request)
	t.receiveResponse()
	t.write(object{"type": "ping", "id": 1, "x-check": true})
	if l := t.receive("`pong`"); l.kind != "pong" {
		t.fail("it wrote a `%s`; expected `pong`", l.kind)
	}
	t.endInput()
}

func checkSpelling(t *trial) {
	t.startReady()
	t.send("")
	t.send(" \t \r")
	t.next = 7
	t.pending[7] = true
	message := strings.TrimSpace(string(encode(t.sampleMessage())))
	t.send(" { \"message\" :\t" + message + " , \"remaining_ms\" : 60000 , \"\\u0069d\" : 7 , \"type\" : \"request\" } \r")
	t.receiveResponse()
	t.next = 9
	t.pending[9] = true
	t.send(`{"type":"ping","id":8,"remaining_ms":1,"message":` + message + `,"type":"request","remaining_ms":60000,"id":9}`)
	t.receiveResponse()
	t.checkQuiet()
	t.endInput()
}

// responsesAsked is the number of requests in checks that only count the responses.
const responsesAsked = 40

func checkResponses(t *trial) {
	t.startReady()
	window := t.window
	for asked := 0; asked < responsesAsked || len(t.pending) > 0; {
		for ; asked < responsesAsked && len(t.pending) < window; asked++ {
			if asked == responsesAsked/2 {
				// The next ids are the largest that there are.
				t.next = 1<<53 - 1 - (responsesAsked - responsesAsked/2)
			}
			t.sendRequest(t.sampleMessage())
		}
		t.receiveResponse()
	}
	t.next = 0
	t.checkQuiet()
	t.endInput()
}

func checkPayloads(t *trial) {
	t.startReady()
	metadata := map[string]string{"message_id": "m"}
	for _, m := range []object{
		{"id": "m", "payload": "", "metadata": metadata},
		{"id": "m", "metadata": metadata},
		{"id": "m", "payload": "open"},
		{"id": "m", "payload": "", "metadata": object{}},
		{"id": "m", "payload_b64": "", "metadata": metadata},
		{"id": "m", "payload_b64": base64.StdEncoding.EncodeToString(t.Message), "metadata": metadata},
		{"id": "m", "payload_b64": base64.StdEncoding.EncodeToString([]byte("\x00\xff\xfe\x80\xc0")), "metadata": metadata},
	} {
		t.roundTrip(m)
	}
	t.checkQuiet()
	t.endInput()
}

func checkPing(t *trial) {
	t.startReady()
	t.checkQuiet()
	t.roundTrip(t.sampleMessage())
	t.checkQuiet()
	t.checkQuiet()
	t.endInput()
}

func checkLateCancel(t *trial) {
	t.startReady()
	if !t.hasFeature("cancel") {
		panic(skip("it doesn't have the feature `cancel`"))
	}
	id := t.sendRequest(t.sampleMessage())
	t.receiveResponse()
	t.write(object{"type": "cancel", "id": id})
	t.write(object{"type": "cancel", "id": 4711})
	t.roundTrip(t.sampleMessage())
	t.checkQuiet()
	t.endInput()
}

func checkDrain(t *trial) {
	t.startReady()
	if !t.hasFeature("drain") {
		panic(skip("it doesn't have the feature `drain`"))
	}
	for range t.window {
		t.sendRequest(t.sampleMessage())
	}
	t.write(object{"type": "drain"})
	for len(t.pending) > 0 {
		t.receiveResponse()
	}
	t.checkDrained()
	// A plugin without a request.
	t.startReady()
	t.write(object{"type": "drain"})
	t.checkDrained()
}

func (t *trial) checkDrained() {
	if l := t.receive("`drained`"); l.kind != "drained" {
		t.fail("it wrote a `%s`; expected `drained`", l.kind)
	}
	t.checkExitOutput(ruleDrain, 0)
}

func checkEnd(t *trial) {
	t.startReady()
	t.endInput()
	t.startReady()
	for range t.window {
		t.sendRequest(t.sampleMessage())
	}
	t.endInput()
	// A host that dies before its first line.
	t.launch()
	t.endInput()
}

func checkBrokenLines(t *trial) {
	for _, text := range []string{"{", "hello", "[]", `"request"`, `{"id":1}`, `{"type":1}`, "\ufeff{\"type\":\"ping\",\"id\":1}", "{\"type\":\"x-check\",\"text\":\"\xff\"}", `{"type":"ping","id":1} x`} {
		t.startReady()
		t.send(text)
		t.checkExitOutput(ruleBroken, 1)
		t.waitForStderr("")
	}
	t.launch()
	t.send("open")
	t.checkExitOutput(ruleBroken, 1)
	t.waitForStderr("")
}

// longestTried is the longest line that the check writes.
const longestTried = 64 << 20

func checkLongLines(t *trial) {
	t.startReady()
	if t.maxLine > longestTried {
		panic(skip(fmt.Sprintf("its longest line has more than %d bytes", longestTried)))
	}
	request := t.request(object{"id": "m", "payload": ""}, long)
	request["message"].(object)["payload"] = strings.Repeat("x", t.maxLine+1-len(encode(request)))
	t.write(request)
	t.rule = ruleMaxLine
	t.receiveResponse()
	t.checkQuiet()
	t.rule = ruleBroken
	request = t.request(object{"id": "m", "payload": ""}, long)
	request["message"].(object)["payload"] = strings.Repeat("x", t.maxLine+2-len(encode(request)))
	text := strings.TrimSuffix(string(encode(request)), "\n")
	t.p.noteEvent("> %s", shorten(text))
	// The plugin may exit before it has read the whole line.
	_ = t.p.write([]byte(text+"\n"), t.Patience)
	t.checkExitOutput(ruleBroken, 1)
	t.waitForStderr("")
}
