package sql

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/jsontext"
	devices "github.com/pentrough/pentrough/transports/device"
)

// named is the user's statement, with where its values come from.
type named struct {
	text  string
	paths [][]string
}

// What a message of each type has, beside its metadata.
var bodies = map[string][]string{
	devices.TypeEvent:  {"event_id", "type", "device", "online", "reason", "remote_addr", "host", "generation", "epoch", "seq", "connected_at", "time"},
	devices.TypeResult: {"id", "device", "group", "state", "code", "detail", "reply", "encoding", "host", "epoch", "attempt", "time"},
	devices.TypeData:   {"data_id", "device", "host", "epoch", "seq", "encoding", "payload", "late_for", "time"},
}

const (
	// metaPath begins the path of metadata.
	metaPath = "meta"
	// bytesPath is what a device sent or answered, as bytes.
	bytesPath = "bytes"
)

// sources are what may be the value of a parameter of a statement for messages of some types.
func sources(types []string) []string {
	all := []string{bytesPath, metaPath}
	for _, t := range types {
		all = append(all, bodies[t]...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// named reads the statement; nil if there is none.
func (c *Config) named(d database.Dialect) (*named, error) {
	if c.Statement == "" {
		return nil, nil
	}
	read, err := d.Named(c.Statement)
	if e, ok := errors.AsType[*database.NamedError](err); ok {
		return nil, handlers.InvalidAt("statement", c.Statement, e.Offset, "%s", e.Message)
	} else if err != nil {
		return nil, err
	}
	n := &named{text: read.Text}
	known := sources(c.Types)
	for _, p := range read.Params {
		path := strings.Split(p.Name, ".")
		if path[0] == metaPath && len(path) > 1 {
			path = []string{metaPath, strings.Join(path[1:], ".")}
		} else if path[0] == metaPath || !slices.Contains(known, path[0]) {
			return nil, handlers.InvalidAt("statement", c.Statement, p.Offset, "no message of the types %s has %q; %s and meta.KEY are known",
				strings.Join(c.Types, ", "), p.Name, strings.Join(slices.DeleteFunc(known, func(s string) bool { return s == metaPath }), ", "))
		}
		n.paths = append(n.paths, path)
	}
	return n, nil
}

// of is the statement for a message, whose body is given.
func (n *named) of(msg *message.Message, body map[string]json.RawMessage, d database.Dialect) (*database.Statement, error) {
	s := &database.Statement{Text: n.text, Args: make([]any, len(n.paths)), Fit: true}
	for i, path := range n.paths {
		v, err := lookUp(msg, body, path)
		if err != nil {
			return nil, fmt.Errorf("the parameter :%s: %w", strings.Join(path, "."), err)
		}
		if at, ok := v.(time.Time); ok {
			v = d.Time(at)
		}
		s.Args[i] = v
	}
	return s, nil
}

// numbers are the fields that are numbers in all messages.
var numbers = []string{"generation", "epoch", "seq", "code", "attempt"}

// probe is a statement with which the database shows whether the columns fit. Fields whose type
// is known have a value of it; a text, which may be all that a column takes, and what is in a
// payload are NULL.
func (n *named) probe(now any) database.Statement {
	s := database.Statement{Text: n.text, Args: make([]any, len(n.paths)), Fit: true}
	for i, path := range n.paths {
		switch name := path[0]; {
		case len(path) > 1:
		case slices.Contains(numbers, name):
			s.Args[i] = database.JSON("1")
		case name == "online":
			s.Args[i] = database.JSON("true")
		case name == "time" || name == "connected_at":
			s.Args[i] = now
		case name == bytesPath:
			s.Args[i] = []byte{}
		}
	}
	return s
}

// lookUp returns the value of a path as an argument; nil if there is none.
func lookUp(msg *message.Message, body map[string]json.RawMessage, path []string) (any, error) {
	switch path[0] {
	case metaPath:
		if v, ok := msg.Metadata[path[1]]; ok {
			return v, nil
		}
		return nil, nil
	case bytesPath:
		return frame(body)
	}
	raw := []byte(body[path[0]])
	if len(raw) == 0 {
		return nil, nil
	}
	v, _, err := jsontext.Find(raw, nil)
	if err != nil {
		return nil, err
	}
	for _, key := range path[1:] {
		in := v.Raw
		if v.Kind == '"' {
			// What a device sent may be JSON itself; if it is none, it has no such value.
			if in, err = v.Text(); err != nil {
				return nil, err
			}
		}
		found := 0
		if v, found, err = jsontext.Find(in, []string{key}); err != nil || found == 0 {
			return nil, nil //nolint:nilerr // see above
		}
	}
	switch v.Kind {
	case 'n':
		return nil, nil
	case '"':
		text, err := v.Text()
		if err == nil && len(path) == 1 && (path[0] == "time" || path[0] == "connected_at") {
			return time.Parse(time.RFC3339Nano, string(text))
		}
		return string(text), err
	case '{', '[':
		return string(v.Raw), nil
	default:
		return database.JSON(v.Raw), nil
	}
}

// frame is what the device sent or answered.
func frame(body map[string]json.RawMessage) (any, error) {
	text, ok := textOf(body["payload"])
	if !ok {
		if text, ok = textOf(body["reply"]); !ok {
			return nil, nil
		}
	}
	if encoding, _ := textOf(body["encoding"]); encoding == string(devices.Base64) {
		return base64.StdEncoding.DecodeString(text)
	}
	return []byte(text), nil
}

// textOf returns the text of a JSON string, and false for anything else.
func textOf(raw []byte) (string, bool) {
	s := jsontext.New(raw)
	v := s.Value()
	text, err := v.Text()
	return string(text), v.Kind == '"' && err == nil
}
