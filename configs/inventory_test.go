package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/transports/device"
)

func TestParseInventory(t *testing.T) {
	hash := device.HashToken([]byte("token"))
	got, err := ParseInventory("devices.toml", []byte(`
[device."10.0.0.7"]
labels = { site = "north", kind = "lock" }

[device.lock-8]
tokens = ["`+hash.String()+`"]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]device.Listed{"10.0.0.7": {Labels: map[string]string{"site": "north", "kind": "lock"}}, "lock-8": {Tokens: []device.TokenHash{hash}}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b device.TokenHash) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if got, err := ParseInventory("devices.toml", []byte("[device]")); err != nil || len(got) != 0 {
		t.Errorf("no device: %v, %v", got, err)
	}
}

func TestInventoryProblems(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  `devices.toml:1:1: the file lists no device; allowed: [device."NAME"] for each device, or [device] for an empty inventory`,
		"device = 1":                        `devices.toml:1:1: device: only a table can stand here`,
		"device.a = true":                   `devices.toml:1:8: device.a: only a table can stand here`,
		"[[device.a]]":                      `devices.toml:1:10: device.a: only a table can stand here`,
		"device.\"\" = {}":                  `devices.toml:1:8: device."": the name is empty`,
		"[device]\n\"a \" = {}":             `devices.toml:2:1: device."a ": the name begins or ends with a space`,
		"[device]\n\"u\\u0308\" = {}":       "devices.toml:2:1: device.\"u\u0308\": the name is not in the Unicode normal form C (NFC), in which it is \"\\u00fc\"",
		"[device]\na = {}\n\"b\\nc\" = {}":  `devices.toml:3:1: device."b\nc": the name has a control character`,
		"[devices.a]\n[device]":             `devices.toml:1:2: devices: unknown key; allowed: device; did you mean "device"?`,
		"[device.\"10.0.0.7\"]\nlabel = {}": `devices.toml:2:1: device."10.0.0.7".label: unknown key; allowed: labels, tokens; did you mean "labels"?`,
		"[device.\"10.0.0.7\"]\nlabels = { site = \"x\", floor = 3 }\n[device.b]\nlabels = []": `devices.toml:2:24: device."10.0.0.7".labels.floor: only a string can stand here; allowed: a label's value, such as "north"` + "\n" +
			`devices.toml:4:1: device.b.labels: only a table can stand here`,
		"[device.a]\n[device.a]":                 `devices.toml:2:9: device.a: not TOML: the key is already defined, in line 1, column 9`,
		"a = " + strings.Repeat("[", maxDepth+1): fmt.Sprintf(`devices.toml:1:%d: nested too deeply; allowed: up to 64 levels`, maxDepth+5),
	} {
		_, err := ParseInventory("devices.toml", []byte(text))
		if _, ok := errors.AsType[Problems](err); !ok {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

// Someone who writes a token instead of its hash doesn't see the token in the error.
func TestProblemsShowNoToken(t *testing.T) {
	const token = "correct-horse-battery"
	good := device.HashToken([]byte(token)).String()
	for text, want := range map[string]string{
		"tokens = ['" + token + "']":                        `devices.toml:2:11: device.a.tokens[0]: it isn't the hash of a token; pentrough devices hash-token makes one`,
		"tokens = ['" + good + "', 'sha256:" + token + "']": `device.a.tokens[1]: it isn't the hash of a token`,
		"tokens = [3]":             `device.a.tokens[0]: it isn't the hash of a token`,
		"tokens = '" + token + "'": `device.a.tokens: only a list can stand here; allowed: hashes of tokens, such as ["sha256:..."]`,
		"token = '" + token + "'":  `device.a.token: unknown key; allowed: labels, tokens; did you mean "tokens"?`,
		"tokens = ['" + strings.Repeat(good+"','", 2) + "x']": `device.a.tokens: there are 3 tokens; allowed: up to 2: the current one, and the next one`,
	} {
		_, err := ParseInventory("devices.toml", []byte("[device.a]\n"+text))
		problems, ok := errors.AsType[Problems](err)
		if !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v; want %s", text, err, want)
		}
		if all := problems.Listing() + err.Error(); strings.Contains(all, token) {
			t.Errorf("%s: the token is in %s", text, all)
		}
	}
}

func TestReadInventory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices.toml")
	if _, err := ReadInventory(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("[device.a]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadInventory(path); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestInventoryTable(t *testing.T) {
	if got := parse(t, "[inventory]\nfile = 'x.toml'\n[transport.devices]\ntype = 'tcp'\nallow = 'known'").Inventory; got.File != "x.toml" {
		t.Errorf("%+v", got)
	}
}

func BenchmarkParseInventory(b *testing.B) {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "[device.\"10.%d.%d.%d\"]\nlabels = { site = \"north\", kind = \"lock\" }\n", i>>16, i>>8&255, i&255)
	}
	for b.Loop() {
		if got, err := ParseInventory("devices.toml", []byte(text.String())); err != nil || len(got) != 100_000 {
			b.Fatal(len(got), err)
		}
	}
}
