package configs

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
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
	return strings.TrimSuffix(sentence, ".") + "."
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
