package walls

import (
	"path"
	"slices"
	"strings"
)

// room is the group that a package belongs to. The rules for imports are between rooms.
type room int

const (
	command   room = iota // cmd/...
	config                // configs
	routing               // router
	contract              // what plugin authors import
	leaf                  // a plugin
	suite                 // a contract's conformance tests
	inner                 // internal/... but internal/plugin
	registry              // internal/plugin
	testInner             // internal/... that only tests use
	shared                // internal/... that leaves share
	program               // what the program of a plugin is made with
	base                  // packages of internal that everything may import
)

func (r room) String() string {
	return [...]string{"command", "configs", "router", "contract", "leaf", "suite", "internal", "internal/plugin", "test environment", "internal, for leaves", "for programs of plugins", "base"}[r]
}

var contracts = []string{"handlers", "transports", "transports/pubsub", "transports/device", "transports/codec", "transports/protocol", "router/middleware"}

// sharedParts are packages that several leaves need and no plugin author does.
var sharedParts = []string{"internal/byteexpr", "internal/database", "internal/expression", "internal/stdio"}

// baseParts are mechanisms that every part of the program uses. They import no other package of
// the module.
var baseParts = []string{"internal/backoff", "internal/checksum", "internal/exprerror", "internal/filewatch", "internal/hostnames", "internal/jsontext", "internal/listen", "internal/outage", "internal/pattern", "internal/printable", "internal/redact", "internal/spelling"}

// roomOf returns the room of a package, given as a path inside the module. For a leaf or a suite
// it also returns the folder of the plugin or suite.
func roomOf(pkg string) (r room, folder string, ok bool) {
	switch {
	case strings.HasPrefix(pkg, "cmd/"):
		// A command may have packages of its own, in its internal folder.
		folder, _, _ := strings.Cut(pkg, "/internal/")
		return command, folder, true
	case pkg == "configs":
		return config, pkg, true
	case pkg == "router":
		return routing, pkg, true
	case slices.Contains(contracts, pkg):
		return contract, pkg, true
	case pkg == "handlers/serve":
		return program, pkg, true
	case pkg == "internal/plugin":
		return registry, pkg, true
	case pkg == "internal/walls" || strings.HasPrefix(pkg, "internal/testenv"):
		return testInner, pkg, true
	case slices.Contains(sharedParts, pkg):
		return shared, pkg, true
	case slices.Contains(baseParts, pkg):
		return base, pkg, true
	case strings.HasPrefix(pkg, "internal/"):
		return inner, pkg, true
	}
	// The longest contract above it decides: transports/codec/line belongs to transports/codec.
	above := ""
	for _, c := range contracts {
		if strings.HasPrefix(pkg, c+"/") && len(c) > len(above) {
			above = c
		}
	}
	if above == "" {
		return 0, "", false
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(pkg, above+"/"), "/")
	if strings.HasSuffix(name, "test") {
		return suite, path.Join(above, name), true
	}
	return leaf, path.Join(above, name), true
}

// mayImport lists, for each room, the rooms that its packages may import in addition to their own
// folder and the base. Tests are excepted.
var mayImport = map[room][]room{
	command:   {config, routing, contract, leaf, inner, registry, shared},
	config:    {routing, contract, inner, registry, shared},
	routing:   {contract, inner, registry},
	contract:  {contract, registry},
	leaf:      {contract, shared},
	shared:    {contract},
	program:   {contract, registry, shared},
	suite:     {contract, suite},
	inner:     {contract, inner, registry, shared},
	registry:  {},
	testInner: {testInner},
	base:      {},
}

// forbidden lists imports that the rooms would allow and the design doesn't. No package in or
// below the first folder imports one in or below the second.
var forbidden = [][2]string{
	{"transports", "handlers"},
	{"transports", "router"},
	{"handlers", "router"},
	{"cmd/devsim", "router"},
	{"cmd/devsim", "configs"},
}

// isWithin reports whether pkg is folder or is below it.
func isWithin(pkg, folder string) bool {
	return pkg == folder || strings.HasPrefix(pkg, folder+"/")
}

// forbiddenReason returns why package from may not import package to, or "".
func forbiddenReason(from, to string) string {
	fromRoom, fromFolder, ok := roomOf(from)
	if !ok {
		return "package " + from + " belongs to no room of the house"
	}
	toRoom, toFolder, ok := roomOf(to)
	if !ok {
		return "package " + to + " belongs to no room of the house"
	}
	for _, n := range forbidden {
		if isWithin(from, n[0]) && isWithin(to, n[1]) {
			return from + " imports " + to + ": nothing below " + n[0] + " knows of " + n[1]
		}
	}
	if fromFolder == toFolder || toRoom == base || slices.Contains(mayImport[fromRoom], toRoom) {
		return ""
	}
	if fromRoom == leaf && toRoom == leaf {
		return from + " imports " + to + ": a leaf never imports another leaf"
	}
	return from + " (" + fromRoom.String() + ") imports " + to + " (" + toRoom.String() + ")"
}
