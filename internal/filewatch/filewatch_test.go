package filewatch

import (
	"os"
	"path/filepath"
	"testing"
)

func TestChanged(t *testing.T) {
	folder := t.TempDir()
	cert, key, next := filepath.Join(folder, "cert"), filepath.Join(folder, "key"), filepath.Join(folder, "next")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(cert, "1")
	write(key, "1")
	w := New(cert, key)
	for _, step := range []struct {
		name    string
		do      func()
		changed bool
	}{
		{"nothing has happened", func() {}, false},
		{"a file has changed", func() { write(cert, "22") }, false},
		{"the other one, too", func() { write(key, "22") }, false},
		{"both are quiet", func() {}, true},
		{"they were read", func() {}, false},
		{"a file is gone", func() { _ = os.Remove(key) }, false},
		{"it is still gone", func() {}, true},
		{"that is known", func() {}, false},
		{"it is replaced", func() { write(next, "22"); _ = os.Rename(next, key) }, false},
		{"the new one is quiet", func() {}, true},
		{"replaced by one of the same size", func() { write(next, "33"); _ = os.Rename(next, key) }, false},
		{"that is quiet", func() {}, true},
	} {
		step.do()
		if got := w.Changed(); got != step.changed {
			t.Errorf("%s: %v", step.name, got)
		}
	}
}
