package configs

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/pentrough/pentrough/internal/plugin"
)

//go:embed protocols/*.toml
var protocolFiles embed.FS

// Protocol is a ready-made protocol, which every file can use by its name.
type Protocol struct {
	// Name is the name in `protocol = "name"`.
	Name string
	// Devices is a sentence on the devices that speak the protocol.
	Devices string
	// Text is the protocol as TOML, with comments. A copy of it in a file can be changed.
	Text string
}

// Protocols returns the ready-made protocols, sorted by name.
func Protocols() []Protocol {
	files, err := fs.Glob(protocolFiles, "protocols/*.toml")
	if err != nil {
		panic(err)
	}
	all := make([]Protocol, len(files))
	for i, file := range files {
		data, err := protocolFiles.ReadFile(file)
		if err != nil {
			panic(err)
		}
		text := string(data)
		all[i] = Protocol{Name: strings.TrimSuffix(path.Base(file), ".toml"), Devices: firstSentence(text), Text: text}
	}
	return all
}

// firstSentence returns the first sentence of the comment at the beginning of a TOML text, without
// the name before its colon.
func firstSentence(text string) string {
	var words []string
	for line := range strings.Lines(text) {
		comment, ok := strings.CutPrefix(strings.TrimSpace(line), "# ")
		if !ok {
			break
		}
		words = append(words, comment)
	}
	sentence, _, _ := strings.Cut(strings.Join(words, " "), ". ")
	_, sentence, _ = strings.Cut(sentence, ": ")
	return strings.ToUpper(sentence[:1]) + strings.TrimSuffix(sentence[1:], ".") + "."
}

// Table is a table of a file with a name, such as [protocol.NAME].
type Table struct {
	Name     string
	Position Position
}

// Tables returns the named tables of a section of a file, in the order of the file. It doesn't
// check what they contain. If the file isn't TOML, the error is of type [Problems].
func Tables(file, section string) ([]Table, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	tree, at, problems := readTree(file, data)
	if problems != nil {
		return nil, problems
	}
	tables, _ := tree[section].(map[string]any)
	all := make([]Table, 0, len(tables))
	for key := range tables {
		all = append(all, Table{key, at.find(plugin.Join(section, key))})
	}
	slices.SortFunc(all, func(a, b Table) int { return cmp.Compare(a.Position.Line, b.Position.Line) })
	return all, nil
}

// readyMade returns the tables of the ready-made protocols for decoders, which only read them.
var readyMade = sync.OnceValue(func() map[string]map[string]any {
	tables := map[string]any{}
	for _, p := range Protocols() {
		var tree map[string]any
		if _, err := decodeTOML(p.Text, &tree); err != nil {
			panic(fmt.Sprintf("the ready-made protocol %s: %v", p.Name, err))
		}
		section, _ := tree["protocol"].(map[string]any)
		tables[p.Name] = section[p.Name]
	}
	return map[string]map[string]any{"protocol": tables}
})
