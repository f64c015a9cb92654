// Package stdio reads and writes the lines of the process protocol (docs/process-protocol.md). The
// host (handlers/process) and the Go SDK (handlers/serve) share it.
//
// A line is one JSON object. [Reader] and [Writer] transfer lines. [ParseMessage] and
// [AppendMessage] convert the messages in requests and responses. The other keys of a line belong
// to the host or to the SDK alone, so their packages parse them.
package stdio

const (
	// Version is the version of the protocol.
	Version = 1
	// LargestID is the largest id that a request may have.
	LargestID = 1<<53 - 1
	// StartMaxLine is the longest line before both sides have announced their max_line, in bytes.
	StartMaxLine = 1 << 20
)
