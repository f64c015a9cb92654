package device

import (
	"encoding/json"
	"strings"
	"testing"
)

// Commands of several sizes: the original form, every common field (300 bytes), and a long text.
var benchBodies = []struct{ name, body string }{
	{"100B", `{"id":"0b0d3f0e-1d6e-4a5c-9f6b-6a2d8a1f0c11","address":"127.3.4.5","cmd":"SET relay 4 on","ttl":"30s"}`},
	{"300B", `{"id": "0b0d3f0e-1d6e-4a5c-9f6b-6a2d8a1f0c11", "device": "127.3.4.5", "cmd": "53455420726c792034206f6e53455420726c792034206f6e", ` +
		`"encoding": "hex", "ttl": "1m30s", "mode": "at-least-once", "offline": "hold", "reply": true, "timeout": 2.5, "priority": 4, "supersede": "relay-4"}`},
	{"10kB", `{"id":"0b0d3f0e-1d6e-4a5c-9f6b-6a2d8a1f0c11","device":"127.3.4.5","cmd":"` + strings.Repeat("SET relay 4 on, ", 640) + `"}`},
	{"10kB-not-ASCII", `{"id":"0b0d3f0e-1d6e-4a5c-9f6b-6a2d8a1f0c11","device":"127.3.4.5","cmd":"` + strings.Repeat("Tür 4 öffnen, ", 640) + `"}`},
	{"10kB-escapes", `{"id":"0b0d3f0e-1d6e-4a5c-9f6b-6a2d8a1f0c11","device":"127.3.4.5","cmd":"` + strings.Repeat(`say \"on\"\t4, `, 680) + `"}`},
}

func BenchmarkParseCommand(b *testing.B) {
	for _, c := range benchBodies {
		body := []byte(c.body)
		b.Run(c.name+"/strict", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, err := ParseCommand(body, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/encoding-json", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				var c struct{ ID, Address, Cmd, TTL string }
				if err := json.Unmarshal(body, &c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
