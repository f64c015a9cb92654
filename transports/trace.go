package transports

import (
	"log/slog"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
)

// TraceID returns the id of the trace that a message belongs to. It is "" if the message has no
// valid [TraceParent].
func TraceID(m message.Metadata) string {
	const version, id, parent, flags = 2, 32, 16, 2
	p := m[TraceParent]
	if len(p) < version+1+id+1+parent+1+flags {
		return ""
	}
	trace := p[version+1 : version+1+id]
	fits := p[version] == '-' && p[version+1+id] == '-' && p[version+1+id+1+parent] == '-' &&
		isHex(p[:version]) && p[:version] != "ff" && isHex(trace) && strings.Trim(trace, "0") != ""
	if !fits {
		return ""
	}
	return trace
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// Traced returns a logger with the attribute "trace" if the message belongs to a trace.
func Traced(log *slog.Logger, m message.Metadata) *slog.Logger {
	if id := TraceID(m); id != "" {
		return log.With("trace", id)
	}
	return log
}
