package ledger

import (
	"encoding/json"
	"fmt"

	"github.com/pentrough/pentrough/router/middleware"
)

// marshal makes JSON of outputs, and nothing of none.
func marshal(outputs []middleware.Output) ([]byte, error) {
	if outputs == nil {
		return nil, nil
	}
	return json.Marshal(outputs)
}

// decode takes in what a store has as bytes. Its error says why nobody can use the row.
func (r *Row) decode(digest, outputs []byte) error {
	flawed := func(format string, args ...any) error {
		return fmt.Errorf("row %d, id %q of pipeline %s: %w", r.Number, r.Key.ID, r.Key.Pipeline, fmt.Errorf(format, args...))
	}
	if r.State < Writing || r.State > Confirmed {
		return flawed("there is no state %d", int(r.State))
	}
	if copy(r.Digest[:], digest); len(digest) != len(r.Digest) {
		return flawed("its digest has %d bytes instead of %d", len(digest), len(r.Digest))
	}
	if outputs == nil {
		return nil
	}
	if err := json.Unmarshal(outputs, &r.Outputs); err != nil {
		return flawed("reading its outputs: %w", err)
	}
	return nil
}
