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

// named is the user's statement, with the path in the message for each parameter.
type named struct {
	text  string
	paths [][]string
}

// bodies has the fields in the body of each type of message.
var bodies = map[string][]string{
	devices.TypeEvent:  {"event_id", "type", "device", "online", "reason", "detail", "remote_addr", "host", "generation", "epoch", "seq", "connected_at", "time"},
	devices.TypeResult: {"id", "device", "group", "state", "code", "detail", "reply", "encoding", "host", "epoch", "attempt", "time"},
	devices.TypeData:   {"data_id", "device", "host", "epoch", "seq", "encoding", "payload", "kind", "partial", "late_for", "time"},
}

const (
	// metaPath is the first part of the path of metadata.
	metaPath = "meta"
	// bytesPath is the path of the frame that the device sent or answered, as bytes.
	bytesPath = "bytes"
)

// sources returns the paths that a parameter may begin with, for messages of the given types.
func sources(types []string) []string {
	all := []string{bytesPath, metaPath}
	for _, t := range types {
		all = append(all, bodies[t]...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// named parses the user's statement. It returns nil if there is none.
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
			return nil, handlers.InvalidAt("statement", c.Statement, p.Offset, "no message of the types %s has %q; allowed: %s and meta.KEY",
				strings.Join(c.Types, ", "), p.Name, strings.Join(slices.DeleteFunc(known, func(s string) bool { return s == metaPath }), ", "))
		}
		n.paths = append(n.paths, path)
	}
	return n, nil
}

// bind returns the statement with the values of a message and its parsed body.
func (n *named) bind(msg *message.Message, body map[string]json.RawMessage, d database.Dialect) (*database.Statement, error) {
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

// probe returns the statement with sample values. The database explains the statement, which shows
// whether the columns fit. A field with a known type has a value of that type. Other values are
// NULL: a text may be for a column of any type, and values in a payload have no known type.
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

// lookUp returns the value at a path in a message, or nil if the message has no such value.
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
			// The text that a device sent may be JSON itself. If it isn't, there is no such value.
			if in, err = v.Text(); err != nil {
				return nil, err
			}
		}
		found := 0
		if v, found, err = jsontext.Find(in, []string{key}); err != nil || found == 0 {
			return nil, nil //nolint:nilerr // an error means that the text isn't JSON
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

// frame returns the bytes that the device sent or answered, or nil.
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
