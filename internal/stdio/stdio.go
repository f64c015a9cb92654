// Package stdio is the wire of process plugins (docs/process-protocol.md), as far as the host and the Go SDK share it: lines of JSON, and the messages in them.
//
// [Reader] and [Writer] carry lines, [ParseMessage] and [AppendMessage] are the messages in requests and responses.
package stdio

const (
	// Version is that of the protocol.
	Version = 1
	// LargestID is the largest id of a request.
	LargestID = 1<<53 - 1
	// StartMaxLine is how long a line may be before both sides have said how long.
	StartMaxLine = 1 << 20
)
