package configs

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/internal/spelling"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// maxInventory is the largest size of an inventory, in bytes. A larger file is certainly something
// else.
const maxInventory = 64 << 20

// Inventory is the [inventory] table: which devices exist.
type Inventory struct {
	// File is the file that lists the devices; "" means no inventory.
	File string
}

// inventoryTable is the [inventory] table in TOML.
type inventoryTable struct {
	File string `toml:"file" required:"true" doc:"The file that lists the devices, their labels and the hashes of their tokens, relative to the working directory. The host reads it again when it has changed." example:"\"devices.toml\""`
}

// maxTokens is how many tokens a device may have: the current one, and the next one.
const maxTokens = 2

// ReadInventory reads an inventory file and returns what it says of each device. If something in
// the file is wrong, the error is of type [Problems].
func ReadInventory(path string) (map[string]device.Listed, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the inventory: %w", err)
	}
	return ParseInventory(path, data)
}

// ParseInventory reads an inventory. name is the name of the file in problems. The error is of
// type [Problems].
func ParseInventory(name string, data []byte) (map[string]device.Listed, error) {
	if len(data) > maxInventory {
		message := fmt.Sprintf("the file has %d bytes; allowed: up to %d", len(data), maxInventory)
		return nil, Problems{{File: name, Position: Position{1, 1}, Message: message}}
	}
	src := string(data)
	at := scan(src)
	if at.tooDeep != nil {
		return nil, Problems{{File: name, Position: *at.tooDeep, Message: fmt.Sprintf("nested too deeply; allowed: up to %d levels", maxDepth)}}
	}
	var tree map[string]any
	if _, err := decodeTOML(src, &tree); err != nil {
		return nil, Problems(place(name, at, nil, []problem{at.syntaxProblem(err)}))
	}
	l := &inventory{}
	devices := l.file(tree)
	if len(l.problems) > 0 {
		return nil, Problems(place(name, at, &l.secrets, l.problems))
	}
	return devices, nil
}

// inventory decodes the tree of an inventory file.
type inventory struct {
	problems []problem
	// secrets are texts that may be tokens. Problems don't show them.
	secrets redact.Set
}

func (l *inventory) fail(path, what, allowed, meant string) {
	l.problems = append(l.problems, problem{path: path, message: plugin.Describe(what, allowed, meant)})
}

// The keys of an inventory file.
const (
	deviceKey = "device"
	labelsKey = "labels"
	tokensKey = "tokens"
)

func (l *inventory) file(tree map[string]any) map[string]device.Listed {
	l.only("", tree, deviceKey)
	if tree[deviceKey] == nil {
		l.fail("", "the file lists no device", `[device."NAME"] for each device, or [device] for an empty inventory`, "")
		return nil
	}
	tables, ok := l.table(deviceKey, tree[deviceKey])
	if !ok {
		return nil
	}
	devices := make(map[string]device.Listed, len(tables))
	for name, v := range tables {
		path := plugin.Join(deviceKey, name)
		if err := device.CheckName(name); err != nil {
			l.fail(path, strings.TrimPrefix(err.Error(), device.ErrDevice.Error()+": "), "", "")
		}
		if t, ok := l.table(path, v); ok {
			l.only(path, t, labelsKey, tokensKey)
			devices[name] = device.Listed{
				Labels: l.labels(plugin.Join(path, labelsKey), t[labelsKey]),
				Tokens: l.tokens(plugin.Join(path, tokensKey), t[tokensKey]),
			}
		}
	}
	return devices
}

func (l *inventory) labels(path string, v any) map[string]string {
	if v == nil {
		return nil
	}
	t, ok := l.table(path, v)
	if !ok {
		return nil
	}
	labels := make(map[string]string, len(t))
	for key, v := range t {
		at := plugin.Join(path, key)
		if key == "" {
			l.fail(at, "the label has no name", "", "")
		}
		s, ok := v.(string)
		if !ok {
			l.fail(at, "only a string can stand here", `a label's value, such as "north"`, "")
		}
		labels[key] = s
	}
	return labels
}

// tokens returns the hashes of a device's tokens.
func (l *inventory) tokens(path string, v any) (hashes []device.TokenHash) {
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	switch {
	case !ok:
		if s, ok := v.(string); ok {
			l.secrets.Secret(s)
		}
		l.fail(path, "only a list can stand here", `hashes of tokens, such as ["sha256:..."]`, "")
	case len(list) > maxTokens:
		l.fail(path, fmt.Sprintf("there are %d tokens", len(list)), fmt.Sprintf("up to %d: the current one, and the next one", maxTokens), "")
	}
	for i, v := range list {
		text, ok := v.(string)
		h, err := device.ParseTokenHash(text)
		if err != nil {
			if ok {
				l.secrets.Secret(text)
			}
			l.fail(fmt.Sprintf("%s[%d]", path, i), err.Error(), "", "")
			continue
		}
		hashes = append(hashes, h)
	}
	return hashes
}

// table returns v as a table, and reports a problem if it is something else.
func (l *inventory) table(path string, v any) (map[string]any, bool) {
	t, ok := v.(map[string]any)
	if !ok {
		l.fail(path, "only a table can stand here", "", "")
	}
	return t, ok
}

// only reports every key of a table other than the allowed ones.
func (l *inventory) only(path string, t map[string]any, allowed ...string) {
	for _, key := range slices.Sorted(maps.Keys(t)) {
		if slices.Contains(allowed, key) {
			continue
		}
		if s, ok := t[key].(string); ok {
			l.secrets.Secret(s)
		}
		l.fail(plugin.Join(path, key), "unknown key", strings.Join(allowed, ", "), spelling.Nearest(key, allowed))
	}
}

// inventory refuses settings that need an inventory if the file has none.
func (c *checker) inventory() {
	if c.file.inventory.File != "" {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(c.file.transports)) {
		setting := transports.NeedsOf(c.file.transports[name].config).Inventory
		if setting == "" {
			continue
		}
		key, _, _ := strings.Cut(setting, " ")
		c.fail(plugin.Join("transport", name)+"."+key, setting+" needs an inventory of devices", `[inventory] with a file, such as file = "devices.toml"`, "")
	}
}
