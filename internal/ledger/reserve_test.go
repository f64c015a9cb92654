package ledger

import (
	"os"
	"path/filepath"
	"testing"
)

// Anything in the place of the reserve is replaced. The target of a symbolic link isn't changed.
func TestTheReserve(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	must(t, os.WriteFile(other, []byte("kept"), 0o600))
	for name, plant := range map[string]func(path string) error{
		"nothing":             func(string) error { return nil },
		"a part, from a kill": func(path string) error { return os.WriteFile(path, make([]byte, 100), 0o600) },
		"a symbolic link":     func(path string) error { return os.Symlink(other, path) },
		"an empty folder":     func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			folder, link := t.TempDir(), filepath.Join(t.TempDir(), "link.db")
			path := filepath.Join(folder, "ledger.db")
			must(t, os.WriteFile(path, nil, 0o600))
			must(t, os.Symlink(path, link))
			must(t, plant(path+".reserve"))
			r := diskReserve{store: link}
			must(t, r.ensureFile())
			if info, err := os.Lstat(path + ".reserve"); err != nil || !info.Mode().IsRegular() || info.Size() != reserveSize {
				t.Errorf("%v, %v", info, err)
			}
			r.removeFile()
			if all, err := os.ReadDir(folder); err != nil || len(all) != 1 {
				t.Errorf("left: %v, %v", all, err)
			}
		})
	}
	if left, err := os.ReadFile(other); err != nil || string(left) != "kept" {
		t.Errorf("%q, %v", left, err)
	}
}
