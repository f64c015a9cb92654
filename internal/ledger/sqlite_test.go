package ledger

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/pentrough/pentrough/router/middleware"
)

// A closed store leaves one file with all its data, and the lock. To copy or move the store, that
// file is enough.
func TestSQLiteCloses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	for attempt := range 2 {
		s := NewSQLite(path, "gateway-1")
		rows, err := s.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != attempt {
			t.Errorf("it has %d rows when it is opened after %d were written", len(rows), attempt)
		}
		b := Batch{Put: []Row{{Number: int64(attempt + 1), Key: middleware.LedgerKey{Pipeline: "p", ID: string(rune('a' + attempt))}, State: Done, Attempts: 1}}}
		if err := s.Apply(t.Context(), b, true); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		left, err := filepath.Glob(path + "*")
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{path, path + ".lock"}; !slices.Equal(left, want) {
			t.Errorf("it left %v, want %v", left, want)
		}
	}
}
