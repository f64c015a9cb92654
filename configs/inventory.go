package configs

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/plugin"
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
	File string `toml:"file" required:"true" doc:"The file that lists the devices and their labels, relative to the working directory. The host reads it again when it has changed." example:"\"devices.toml\""`
}

// ReadInventory reads an inventory file and returns the labels of each device. If something in the
// file is wrong, the error is of type [Problems].
func ReadInventory(path string) (map[string]map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the inventory: %w", err)
	}
	return ParseInventory(path, data)
}

// ParseInventory reads an inventory. name is the name of the file in problems. The error is of
// type [Problems].
func ParseInventory(name string, data []byte) (map[string]map[string]string, error) {
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
		return nil, Problems(place(name, at, nil, l.problems))
	}
	return devices, nil
}

// inventory decodes the tree of an inventory file.
type inventory struct{ problems []problem }

func (l *inventory) fail(path, what, allowed, meant string) {
	l.problems = append(l.problems, problem{path: path, message: plugin.Describe(what, allowed, meant)})
}

// The keys of an inventory file.
const (
	deviceKey = "device"
	labelsKey = "labels"
)

func (l *inventory) file(tree map[string]any) map[string]map[string]string {
	l.only("", tree, deviceKey)
	if tree[deviceKey] == nil {
		l.fail("", "the file lists no device", `[device."NAME"] for each device, or [device] for an empty inventory`, "")
		return nil
	}
	tables, ok := l.table(deviceKey, tree[deviceKey])
	if !ok {
		return nil
	}
	devices := make(map[string]map[string]string, len(tables))
	for name, v := range tables {
		path := plugin.Join(deviceKey, name)
		if err := device.CheckName(name); err != nil {
			l.fail(path, strings.TrimPrefix(err.Error(), device.ErrDevice.Error()+": "), "", "")
		}
		if t, ok := l.table(path, v); ok {
			l.only(path, t, labelsKey)
			devices[name] = l.labels(plugin.Join(path, labelsKey), t[labelsKey])
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

// table returns v as a table, and reports a problem if it is something else.
func (l *inventory) table(path string, v any) (map[string]any, bool) {
	t, ok := v.(map[string]any)
	if !ok {
		l.fail(path, "only a table can stand here", "", "")
	}
	return t, ok
}

// only reports every key of a table other than the allowed one.
func (l *inventory) only(path string, t map[string]any, allowed string) {
	for _, key := range slices.Sorted(maps.Keys(t)) {
		if key != allowed {
			l.fail(plugin.Join(path, key), "unknown key", allowed, spelling.Nearest(key, []string{allowed}))
		}
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
