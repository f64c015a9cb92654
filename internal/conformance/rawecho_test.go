package conformance

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// rawEcho is an echo plugin that shares no code with the SDK. It makes one mistake at most.
type rawEcho struct {
	mistake string
	out     *os.File

	mu        sync.Mutex
	running   map[string]chan struct{}
	most      int
	work      sync.WaitGroup
	responses int
}

// has returns whether the plugin makes this mistake.
func (e *rawEcho) has(mistake string) bool { return e.mistake == mistake }

func (e *rawEcho) write(o object) {
	text := encode(o)
	if e.has("no line feed") {
		text = append(bytes.TrimSpace(text), ' ')
	}
	if e.has("half a surrogate pair") {
		text = bytes.ReplaceAll(text, []byte("open"), []byte(`\ud83d`))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, _ = e.out.Write(text) // if the host has ended, standard input ends, too
}

func leave(status int, format string, args ...any) {
	if format != "" {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
	os.Exit(status)
}

// runRawEcho runs the plugin until its input ends.
func runRawEcho(mistake string) {
	e := &rawEcho{mistake: mistake, out: os.Stdout, running: map[string]chan struct{}{}, most: 1 << 20}
	if !e.has("prints to standard output") {
		os.Stdout = os.Stderr
	}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		line = line[:len(line)-1]
		if len(line) > e.most && !e.has("takes lines of any length") || len(line) >= e.most && e.has("counts the line feed") {
			leave(1, "a line of %d bytes", len(line))
		}
		if len(bytes.TrimSpace(line)) == 0 && !e.has("takes blank lines amiss") {
			continue
		}
		dec := json.NewDecoder(bytes.NewReader(line))
		if !e.has("numbers are floats") {
			dec.UseNumber()
		}
		var m map[string]any
		err = dec.Decode(&m)
		_, after := dec.Token()
		kind, isString := m["type"].(string)
		if err != nil || after != io.EOF || !isString || !utf8.Valid(line) {
			if e.has("overlooks broken lines") {
				continue
			}
			if e.has("status 0 for broken lines") {
				leave(0, "not a line: %s", line)
			}
			leave(1, map[bool]string{true: "", false: "not a line"}[e.has("says nothing of broken lines")])
		}
		e.take(kind, m)
	}
	if e.has("outlives its standard input") {
		select {}
	}
	if e.has("fails at the end") {
		os.Exit(3)
	}
	os.Exit(0)
}

func (e *rawEcho) take(kind string, m map[string]any) {
	switch kind {
	case "hello":
		e.greet(m)
	case "request":
		id := string(encode(m["id"]))
		id = strings.TrimSpace(id)
		cancelled := make(chan struct{})
		e.mu.Lock()
		e.running[id] = cancelled
		e.mu.Unlock()
		if e.has("one after the other") {
			e.handle(id, m, cancelled)
		} else {
			e.work.Go(func() { e.handle(id, m, cancelled) })
		}
	case "cancel":
		id := strings.TrimSpace(string(encode(m["id"])))
		e.mu.Lock()
		defer e.mu.Unlock()
		if c, ok := e.running[id]; ok && !e.has("doesn't act on cancel") {
			close(c)
			delete(e.running, id)
		} else if !ok && e.has("a late cancel breaks it") {
			leave(1, "no request %s", id)
		}
	case "ping":
		if e.has("no pong") {
			return
		}
		id := m["id"]
		if e.has("pong of another id") {
			id = 1 << 20
		}
		e.write(object{"type": "pong", "id": id})
	case "drain":
		go e.drain()
	default:
		if e.has("minds unknown types") {
			leave(1, "unknown type %s", kind)
		}
	}
}

func (e *rawEcho) drain() {
	if e.has("drained too early") {
		e.write(object{"type": "drained"})
	}
	e.work.Wait()
	if e.has("leaves without drained") {
		os.Exit(0)
	}
	e.write(object{"type": "drained"})
	if !e.has("stays after drained") {
		os.Exit(0)
	}
}

func (e *rawEcho) greet(m map[string]any) {
	versions, _ := m["versions"].([]any)
	if e.has("ready first") {
		e.write(object{"type": "ready"})
	}
	if !slices.ContainsFunc(versions, func(v any) bool { return fmt.Sprint(v) == "1" }) && !e.has("takes any version") {
		e.write(object{"type": "refuse", "text": "this is version 1"})
		os.Exit(0)
	}
	if limit, err := strconv.Atoi(fmt.Sprint(m["max_line"])); err == nil {
		e.most = limit
	}
	hello := object{
		"type": "hello", "version": 1, "name": "raw", "features": []string{"cancel", "drain"}, "window": 4,
		"schema": object{"type": "object", "properties": object{"limit": object{"type": "integer", "minimum": 0}}, "additionalProperties": false},
	}
	switch e.mistake {
	case "no name":
		delete(hello, "name")
	case "a window of nothing":
		hello["window"] = 0
	case "a schema that isn't one":
		hello["schema"] = object{"type": "table"}
	case "a schema that the config doesn't fit":
		hello["schema"] = object{"required": []string{"more"}}
	case "only one feature":
		hello["features"] = []string{"cancel"}
	}
	e.write(hello)
	config, _ := m["config"].(map[string]any)
	var problems []object
	for key, v := range config {
		n, err := strconv.Atoi(strings.TrimSpace(string(encode(v))))
		if key != "limit" || err != nil || n < 0 {
			problem := object{"key": key, "text": "isn't right"}
			if e.has("problems without keys") {
				delete(problem, "key")
			}
			problems = append(problems, problem)
			break
		}
	}
	if len(problems) > 0 && !e.has("takes any config") {
		e.write(object{"type": "refuse", "problems": problems})
		os.Exit(0)
	}
	if !e.has("never ready") {
		e.write(object{"type": "ready"})
	}
}

func (e *rawEcho) handle(id string, m map[string]any, cancelled chan struct{}) {
	message, _ := m["message"].(map[string]any)
	text, there := message["payload"].(string)
	data := []byte(text)
	if !there && e.has("needs a payload") {
		leave(1, "no payload")
	}
	if coded, ok := message["payload_b64"].(string); ok {
		data, _ = base64.StdEncoding.DecodeString(coded)
	}
	metadata, _ := message["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
	}
	asked := func(key string) string { s, _ := metadata["echo."+key].(string); return s }
	if asked("wait") == "cancel" {
		ms, err := strconv.ParseFloat(fmt.Sprint(m["remaining_ms"]), 64)
		if err != nil {
			leave(1, "no time")
		}
		over := time.NewTimer(time.Duration(ms) * time.Millisecond)
		defer over.Stop()
		expired := over.C
		if e.has("knows no deadline") {
			expired = nil
		}
		select {
		case <-cancelled:
			if e.has("no response to what is cancelled") {
				return
			}
		case <-expired:
		}
	}
	if level := asked("log"); level != "" {
		line := object{"type": "log", "level": level, "text": string(data), "fields": object{"id": message["id"]}}
		if e.has("a level of its own") {
			line["level"] = "notice"
		}
		e.write(line)
	}
	if line := asked("print"); line != "" {
		fmt.Fprintln(os.Stdout, line)
	}
	e.respond(id, data, metadata, asked)
}

func (e *rawEcho) respond(id string, data []byte, metadata map[string]any, asked func(string) string) {
	response := object{"type": "response", "id": json.Number(id)}
	if e.has("numbers are floats") {
		f, _ := strconv.ParseFloat(id, 64)
		response["id"] = json.RawMessage(strconv.FormatFloat(f, 'g', 15, 64))
	}
	one := object{"metadata": metadata}
	if size, err := strconv.Atoi(asked("size")); err == nil {
		data = bytes.Repeat([]byte("x"), size)
	}
	switch {
	case utf8.Valid(data), e.has("spoils bytes"):
		one["payload"] = string(data)
	case e.has("base64 without padding"):
		one["payload_b64"] = base64.RawStdEncoding.EncodeToString(data)
	default:
		one["payload_b64"] = base64.StdEncoding.EncodeToString(data)
	}
	switch e.mistake {
	case "both payloads":
		one["payload"], one["payload_b64"] = "", ""
	case "loses metadata":
		delete(metadata, "empty")
	case "metadata that aren't strings":
		metadata["count"] = 1
	}
	if to := asked("to"); to != "" {
		one["to"] = to
	}
	copies, err := strconv.Atoi(asked("copies"))
	if err != nil || e.has("always one message") {
		copies = 1
	}
	response["messages"] = slices.Repeat([]object{one}, copies)
	if kind := asked("error"); kind != "" {
		if e.has("errors of one kind") {
			kind = "permanent"
		}
		failure := object{"kind": kind, "text": string(data)}
		if after, err := strconv.Atoi(asked("retry_after_ms")); err == nil {
			failure["retry_after_ms"] = after
		}
		response["error"] = failure
		delete(response, "messages")
	}
	if len(encode(response)) > hostMaxLine+1 && !e.has("responses of any length") {
		response["error"] = object{"kind": "permanent", "text": "too long"}
		delete(response, "messages")
	}
	e.mu.Lock()
	delete(e.running, id)
	e.responses++
	n := e.responses
	e.mu.Unlock()
	if n == 30 && e.has("forgets a response") {
		return
	}
	e.write(response)
	if e.has("responds twice") {
		e.write(response)
	}
}
