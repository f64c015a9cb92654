package process

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

// characterOf is the environment variable that turns the test's program into a plugin.
const characterOf = "PENTROUGH_TEST_CHARACTER"

func TestMain(m *testing.M) {
	if character, ok := os.LookupEnv(characterOf); ok {
		act(character)
		return
	}
	await.Main(m)
}

// act is a plugin. Its character and the payload of each message say which fault it has.
func act(character string) {
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	switch character {
	case "mute":
		select {}
	case "dead":
		fmt.Fprintln(os.Stderr, "no such library")
		os.Exit(3)
	case "chatty":
		say("Hello, I am a plugin.")
		select {}
	case "future":
		say(`{"type":"hello","version":2,"name":"p"}`)
	case "refusing":
		say(`{"type":"refuse","text":"no licence","problems":[{"key":"a.b","text":"is 1"},{"key":"","text":"is odd"}]}`)
		os.Exit(0)
	case "schema":
		say(`{"type":"hello","version":1,"name":"p","schema":{"type":"object","properties":{"n":{"type":"integer","minimum":5}},"additionalProperties":false}}`)
	case "stillborn": // exits as soon as it is ready
		say(`{"type":"hello","version":1,"name":"p"}`)
		say(`{"type":"ready"}`)
		os.Exit(1)
	case "long":
		say(`{"type":"log","text":"%s"}`, strings.Repeat("x", 2<<20))
	case "deaf":
		say(`{"type":"hello","version":1,"name":"p"}`)
		if os.Remove(os.Getenv("DEAF_ONCE")) == nil {
			bufio.NewReader(os.Stdin).ReadBytes('\n') // the host's hello
			os.Stdin.Close()
			say(`{"type":"ready"}`)
			select {}
		}
	case "narrow":
		say(`{"type":"hello","version":1,"name":"p","window":1,"max_line":65536}`)
	default:
		say(`{"type":"hello","version":1,"name":"p","features":["cancel","drain"],"plugin_version":"1"}`)
	}
	say(`{"type":"ready"}`)
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		text, err := in.ReadBytes('\n')
		if err != nil {
			if character == "stubborn" {
				select {}
			}
			os.Exit(0)
		}
		var l struct {
			Type    string
			ID      int64
			Message struct {
				ID, Payload string
				PayloadB64  []byte `json:"payload_b64"`
				Metadata    map[string]string
			}
		}
		if err := json.Unmarshal(text, &l); err != nil {
			panic(err)
		}
		respond := func(rest string) { say(`{"type":"response","id":%d%s}`, l.ID, rest) }
		switch l.Type {
		case "drain":
			say(`{"type":"drained"}`)
		case "ping":
			say(`{"type":"pong","id":%d}`, l.ID)
		case "cancel":
			fmt.Fprintln(os.Stderr, "cancelled", l.ID)
		case "request":
			word, rest, _ := strings.Cut(l.Message.Payload, " ")
			switch word {
			case "die":
				os.Exit(7)
			case "die-once":
				if os.Remove(rest) == nil {
					os.Exit(7)
				}
				respond("")
			case "hang":
				continue
			case "spin":
				for n := 0; ; n++ {
					l.ID = int64(n)
				}
			case "print":
				say("a word from a library")
			case "latin":
				os.Stdout.WriteString("{\"type\":\"log\",\"text\":\"\xff\"}\n")
			case "flood":
				piece := bytes.Repeat([]byte("x"), 1<<20)
				for range 100 {
					os.Stdout.Write(piece)
				}
			case "grow":
				all := bytes.Repeat([]byte{1}, 300<<20)
				time.Sleep(time.Hour)
				panic(len(all))
			case "babble":
				for range 5000 {
					fmt.Fprintln(os.Stderr, "a word")
				}
				respond("")
			case "orphan": // another process keeps the output open
				cmd := exec.Command("sleep", "100")
				cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
				if err := cmd.Start(); err != nil {
					panic(err)
				}
				respond(fmt.Sprintf(`,"messages":[{"payload":"%d"}]`, cmd.Process.Pid))
			case "twice":
				respond("")
				respond("")
				say(`{"type":"response","id":999}`)
				say(`{"type":"weather"}`)
			case "mad":
				respond(`,"messages":[{"payload":"a","payload_b64":"YQ=="}]`)
			case "pid":
				respond(fmt.Sprintf(`,"messages":[{"payload":"%d"}]`, os.Getpid()))
			case "env":
				env, _ := json.Marshal(strings.Join(os.Environ(), " "))
				respond(fmt.Sprintf(`,"messages":[{"payload":%s}]`, env))
			case "error":
				respond(`,"error":` + rest)
			case "to":
				respond(fmt.Sprintf(`,"messages":[{"id":"mine","payload":"x","to":%q,"metadata":{"k":"v"}}]`, rest))
			case "crowd":
				n, _ := strconv.Atoi(rest)
				respond(`,"messages":[{}` + strings.Repeat(",{}", n-1) + `]`)
			case "gossip":
				var fields []string
				for i := range 100 {
					fields = append(fields, fmt.Sprintf(`"f%02d":[%q]`, i, strings.Repeat("y", 2000)))
				}
				say(`{"type":"log","text":"a long line","fields":{%s}}`, strings.Join(fields, ","))
				say(`{"type":%q}`, strings.Repeat("z", 1000))
				respond("")
			case "log":
				say(`{"type":"log","level":"warn","text":"the sensor is slow","fields":{"ms":812}}`)
				respond("")
			default:
				body, _ := json.Marshal(l.Message.Payload)
				if l.Message.PayloadB64 != nil {
					b, _ := json.Marshal(l.Message.PayloadB64)
					respond(fmt.Sprintf(`,"messages":[{"payload_b64":%s}]`, b))
					continue
				}
				respond(fmt.Sprintf(`,"messages":[{"payload":%s}]`, body))
			}
		}
	}
}
