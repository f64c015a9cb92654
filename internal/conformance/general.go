package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// generalChecks are those of every plugin.
func generalChecks() []Check {
	return []Check{
		{Name: "start", About: "hello and ready, and what they say", Rule: ruleStart, run: starts},
		{Name: "schema", About: "the schema of the config", Rule: ruleSchema, run: schema},
		{Name: "versions", About: "a host of another version is refused", Rule: ruleRefuse, run: versions},
		{Name: "unknown", About: "unknown keys and types are ignored", Rule: ruleUnknown, run: unknown},
		{Name: "spelling", About: "white space, order of keys, keys that occur twice", Rule: ruleNothing, run: spelling},
		{Name: "responses", About: "each request has one response, with its id", Rule: ruleOnce, run: responses},
		{Name: "bytes", About: "payloads as base64, empty or missing", Rule: ruleBytes, run: payloads},
		{Name: "ping", About: "ping is answered", Rule: rulePing, run: pings},
		{Name: "late-cancel", About: "a cancel of what is answered is ignored", Rule: ruleCancel, run: lateCancel},
		{Name: "drain", About: "drain ends it when all is answered", Rule: ruleDrain, run: drains},
		{Name: "end", About: "the end of standard input ends it", Rule: ruleEnd, run: ends},
		{Name: "broken-lines", About: "what is no line of the protocol ends it", Rule: ruleBroken, run: brokenLines},
		{Name: "long-lines", About: "lines as long as they may be, and longer", Rule: ruleBroken, run: longLines},
	}
}

func starts(t *trial) {
	t.begin()
	t.end()
}

func schema(t *trial) {
	t.begin()
	if t.schema == nil {
		panic(skip("it says no schema"))
	}
	text, err := json.Marshal(t.schema)
	t.check(err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	t.check(err)
	config, err := jsonschema.UnmarshalJSON(bytes.NewReader(encode(t.Config)))
	t.check(err)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	const place = "urn:schema"
	if err := c.AddResource(place, doc); err != nil {
		t.fail("the schema can't be read: %v", err)
	}
	compiled, err := c.Compile(place)
	if err != nil {
		t.fail("it isn't one: %v", err)
	}
	if err := compiled.Validate(config); err != nil {
		t.fail("the plugin takes a config that its schema doesn't: %v", err)
	}
}

func versions(t *trial) {
	t.launch()
	t.write(t.greeting(4_000_001, 4_000_000))
	l := t.receive("`refuse`")
	if l.kind != "refuse" {
		t.fail("a `%s` is the answer to a host of another version", l.kind)
	}
	_, _, err := l.refusal()
	t.check(err)
	t.leaves(ruleRefuse, -1)
	// Versions that it doesn't know, beside one that it does.
	t.launch()
	t.write(t.greeting(4_000_000, 1))
	t.meet()
}

func unknown(t *trial) {
	t.launch()
	greeting := t.greeting(1)
	greeting["x-check"], greeting["host"].(object)["x-check"] = []int{1}, object{}
	t.write(greeting)
	t.meet()
	t.send(`{"type":"x-check","id":1,"message":null}`)
	t.send(`{"type":"X-CHECK"}`)
	message := t.sample()
	message["x-check"] = object{"payload": 1}
	request := t.request(message, long)
	request["x-check"] = nil
	t.write(request)
	t.answer()
	t.write(object{"type": "ping", "id": 1, "x-check": true})
	if l := t.receive("`pong`"); l.kind != "pong" {
		t.fail("a `%s` comes where `pong` was waited for", l.kind)
	}
	t.end()
}

func spelling(t *trial) {
	t.begin()
	t.send("")
	t.send(" \t \r")
	t.next = 7
	t.pending[7] = true
	message := strings.TrimSpace(string(encode(t.sample())))
	t.send(" { \"message\" :\t" + message + " , \"remaining_ms\" : 60000 , \"\\u0069d\" : 7 , \"type\" : \"request\" } \r")
	t.answer()
	t.next = 9
	t.pending[9] = true
	t.send(`{"type":"ping","id":8,"remaining_ms":1,"message":` + message + `,"type":"request","remaining_ms":60000,"id":9}`)
	t.answer()
	t.quiet()
	t.end()
}

// responsesAsked is how many requests are made when only their number matters.
const responsesAsked = 40

func responses(t *trial) {
	t.begin()
	window := t.window
	for asked := 0; asked < responsesAsked || len(t.pending) > 0; {
		for ; asked < responsesAsked && len(t.pending) < window; asked++ {
			if asked == responsesAsked/2 {
				// From here on ids are as large as they get.
				t.next = 1<<53 - 1 - (responsesAsked - responsesAsked/2)
			}
			t.ask(t.sample())
		}
		t.answer()
	}
	t.next = 0
	t.quiet()
	t.end()
}

func payloads(t *trial) {
	t.begin()
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
		t.call(m)
	}
	t.quiet()
	t.end()
}

func pings(t *trial) {
	t.begin()
	t.quiet()
	t.call(t.sample())
	t.quiet()
	t.quiet()
	t.end()
}

func lateCancel(t *trial) {
	t.begin()
	if !t.has("cancel") {
		panic(skip("it hasn't the feature `cancel`"))
	}
	id := t.ask(t.sample())
	t.answer()
	t.write(object{"type": "cancel", "id": id})
	t.write(object{"type": "cancel", "id": 4711})
	t.call(t.sample())
	t.quiet()
	t.end()
}

func drains(t *trial) {
	t.begin()
	if !t.has("drain") {
		panic(skip("it hasn't the feature `drain`"))
	}
	for range t.window {
		t.ask(t.sample())
	}
	t.write(object{"type": "drain"})
	for len(t.pending) > 0 {
		t.answer()
	}
	t.drained()
	// One that has nothing to do.
	t.begin()
	t.write(object{"type": "drain"})
	t.drained()
}

func (t *trial) drained() {
	if l := t.receive("`drained`"); l.kind != "drained" {
		t.fail("a `%s` comes where `drained` was waited for", l.kind)
	}
	t.leaves(ruleDrain, 0)
}

func ends(t *trial) {
	t.begin()
	t.end()
	t.begin()
	for range t.window {
		t.ask(t.sample())
	}
	t.end()
	// A host that dies before it has said a word.
	t.launch()
	t.end()
}

func brokenLines(t *trial) {
	for _, text := range []string{"{", "hello", "[]", `"request"`, `{"id":1}`, `{"type":1}`, "\ufeff{\"type\":\"ping\",\"id\":1}", "{\"type\":\"x-check\",\"text\":\"\xff\"}", `{"type":"ping","id":1} x`} {
		t.begin()
		t.send(text)
		t.leaves(ruleBroken, 1)
		t.says("")
	}
	t.launch()
	t.send("open")
	t.leaves(ruleBroken, 1)
	t.says("")
}

// longestTried is up to which length a plugin's longest line is tried.
const longestTried = 64 << 20

func longLines(t *trial) {
	t.begin()
	if t.maxLine > longestTried {
		panic(skip(fmt.Sprintf("its longest line has more than %d bytes", longestTried)))
	}
	request := t.request(object{"id": "m", "payload": ""}, long)
	request["message"].(object)["payload"] = strings.Repeat("x", t.maxLine+1-len(encode(request)))
	t.write(request)
	t.rule = ruleMaxLine
	t.answer()
	t.quiet()
	t.rule = ruleBroken
	request = t.request(object{"id": "m", "payload": ""}, long)
	request["message"].(object)["payload"] = strings.Repeat("x", t.maxLine+2-len(encode(request)))
	text := strings.TrimSuffix(string(encode(request)), "\n")
	t.p.note("> %s", cut(text))
	// It may leave before it has read it all.
	_ = t.p.write([]byte(text+"\n"), t.Patience)
	t.leaves(ruleBroken, 1)
	t.says("")
}
