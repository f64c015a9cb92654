package bans

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports/device"
)

func open(t *testing.T, url, host string) *Store {
	t.Helper()
	s, err := Open(url, host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	for name, url := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "pentrough.db-bans") },
		"postgres": func(t *testing.T) string { return testenv.NewPostgres(t).URL },
	} {
		t.Run(name, func(t *testing.T) {
			url := url(t)
			s, other := open(t, url, "gw-1"), open(t, url, "gw-2")
			want := func(want map[string][]device.Ban) {
				t.Helper()
				got, err := open(t, url, "gw-1").Load(t.Context())
				for _, all := range got {
					slices.SortFunc(all, func(a, b device.Ban) int { return cmp.Compare(a.Device, b.Device) })
				}
				if diff := gocmp.Diff(want, got); diff != "" || err != nil {
					t.Errorf("%v %s", err, diff)
				}
			}
			if got, err := s.Load(t.Context()); len(got) > 0 || err != nil {
				t.Errorf("an empty store has %v, %v", got, err)
			}
			if err := s.Remove(t.Context(), "north", "d"); err != nil {
				t.Errorf("removing from an empty store: %v", err)
			}
			since := time.Now().Truncate(time.Millisecond).Local()
			put := func(s *Store, transport string, b device.Ban) device.Ban {
				t.Helper()
				b.Since = since
				if err := s.Put(t.Context(), transport, b); err != nil {
					t.Fatal(err)
				}
				return b
			}
			put(s, "north", device.Ban{Device: "d", Until: since.Add(time.Hour)})
			put(s, "north", device.Ban{Device: "past", Until: since.Add(-time.Second)})
			put(other, "north", device.Ban{Device: "foreign"})
			d := put(s, "north", device.Ban{Device: "d", Reason: `"stolen" from lög 7`})
			e := put(s, "north", device.Ban{Device: "e", Until: since.Add(time.Hour)})
			south := put(s, "south", device.Ban{Device: "d"})
			want(map[string][]device.Ban{"north": {d, e}, "south": {south}})
			for range 2 {
				if err := s.Remove(t.Context(), "north", "d"); err != nil {
					t.Error(err)
				}
			}
			want(map[string][]device.Ban{"north": {e}, "south": {south}})
		})
	}
}

// A host whose operator bans nobody has no file of bans.
func TestTheFileIsMadeByTheFirstBan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pentrough.db-bans")
	s := open(t, "sqlite:"+path, "gw-1")
	if _, err := s.Load(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("there is a file: %v", err)
	}
	if err := s.Put(t.Context(), "north", device.Ban{Device: "d", Since: time.Now()}); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
}

func TestAStoreThatCannotBeUsed(t *testing.T) {
	s := open(t, "sqlite:"+filepath.Join(t.TempDir(), "missing", "pentrough.db-bans"), "gw-1")
	if err := s.Put(t.Context(), "north", device.Ban{Device: "d"}); err == nil {
		t.Error("a ban is stored in a folder that doesn't exist")
	}
	path := filepath.Join(t.TempDir(), "pentrough.db-bans")
	if err := os.WriteFile(path, []byte("not a database, but a longer text than the header of one has bytes, which is a hundred"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, "sqlite:"+path, "gw-1").Load(t.Context()); err == nil {
		t.Error("a file that is no database is loaded")
	}
}
