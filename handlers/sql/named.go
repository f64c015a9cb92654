package sql

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
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
func (n *named) of(msg *message.Message, body map[string]any, d database.Dialect) (*database.Statement, error) {
	s := &database.Statement{Text: n.text, Args: make([]any, len(n.paths))}
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

// probe is the statement for a message that has nothing.
func (n *named) probe() database.Statement {
	return database.Statement{Text: n.text, Args: make([]any, len(n.paths))}
}

// lookUp returns the value of a path as an argument; nil if there is none.
func lookUp(msg *message.Message, body map[string]any, path []string) (any, error) {
	switch path[0] {
	case metaPath:
		if v, ok := msg.Metadata[path[1]]; ok {
			return v, nil
		}
		return nil, nil
	case bytesPath:
		return frame(body)
	}
	v := body[path[0]]
	for _, key := range path[1:] {
		if text, ok := v.(string); ok {
			// What a device sent may be JSON itself; if it is none, it has no such value.
			if v = nil; decode([]byte(text), &v) != nil {
				return nil, nil
			}
		}
		in, _ := v.(map[string]any)
		v = in[key]
	}
	text, isText := v.(string)
	if isText && len(path) == 1 && (path[0] == "time" || path[0] == "connected_at") {
		return time.Parse(time.RFC3339Nano, text)
	}
	return argument(v)
}

// frame is what the device sent or answered.
func frame(body map[string]any) (any, error) {
	text, ok := body["payload"].(string)
	if !ok {
		if text, ok = body["reply"].(string); !ok {
			return nil, nil
		}
	}
	if body["encoding"] == string(devices.Base64) {
		return base64.StdEncoding.DecodeString(text)
	}
	return []byte(text), nil
}

// argument is a value of JSON as a database takes it: whole numbers are such, and lists and objects are JSON.
func argument(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i, nil
		}
		f, err := v.Float64()
		if err != nil || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%s is too large a number", v)
		}
		return f, nil
	case map[string]any, []any:
		text, err := json.Marshal(v)
		return string(text), err
	default:
		return v, nil
	}
}

// decode reads JSON with its numbers as they are written.
func decode(text []byte, to any) error {
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	if err := dec.Decode(to); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("something follows its JSON")
	}
	return nil
}
