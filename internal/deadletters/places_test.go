package deadletters

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/testenv"
)

func TestNothingIsMadeByLooking(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "poison")
	if _, err := NewSQLite(path, "h").Operate(t.Context(), "me"); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), path+": ") {
		t.Error(err)
	}
	if files, err := os.ReadDir(folder); len(files) > 0 || err != nil {
		t.Errorf("in the folder are %v, %v", files, err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewSQLite(path, "h").Operate(t.Context(), "me"); !errors.Is(err, database.ErrNone) {
		t.Error(err)
	}
}

func TestTheFileIsItsOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "poison")
	s := closing(t, NewSQLite(path, "h"))
	keep(t, s, roomy, letter(1))
	for _, part := range []string{"", "-wal"} {
		info, err := os.Stat(path + part)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%q: %v, %v", part, info, err)
		}
	}
}

func TestFilesThatAreSomethingElse(t *testing.T) {
	folder := t.TempDir()
	text := filepath.Join(folder, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("text", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, is := range map[string]error{text: database.ErrNotSQLite, filepath.Join(folder, "no", "folder"): fs.ErrNotExist} {
		if _, err := closing(t, NewSQLite(path, "h")).Keep(t.Context(), nil, roomy); !errors.Is(err, is) {
			t.Errorf("%s: a host: %v", path, err)
		}
		if _, err := NewSQLite(path, "h").Operate(t.Context(), "me"); !errors.Is(err, is) {
			t.Errorf("%s: an operator: %v", path, err)
		}
	}
	if _, err := NewSQLite(folder, "h").Operate(t.Context(), "me"); err == nil || !strings.HasSuffix(err.Error(), "is a directory") {
		t.Error(err)
	}
}

// A store that couldn't be opened is opened at the next use. It works again after an outage of its
// server.
func TestAServerThatIsAway(t *testing.T) {
	server := testenv.NewPostgres(t)
	s := closing(t, NewPostgres(server.URL, "h"))
	server.Kill(t)
	if _, err := s.Keep(t.Context(), []handlers.DeadLetter{letter(1)}, roomy); err == nil {
		t.Error("kept without a server")
	}
	server.Start(t)
	keep(t, s, roomy, letter(1))
	o := operate(t, s, "me")
	server.Kill(t)
	if _, err := s.Keep(t.Context(), []handlers.DeadLetter{letter(2)}, roomy); err == nil {
		t.Error("kept without a server")
	}
	if _, err := o.Count(t.Context(), Filter{}); err == nil {
		t.Error("counted without a server")
	}
	server.Start(t)
	keep(t, s, roomy, letter(2), letter(1))
	if got := ids(t, o, Filter{}, OldestFirst); fmt.Sprint(got) != "[id-1 id-2]" {
		t.Errorf("rows of %q", got)
	}
}

func TestSecretsStaySecret(t *testing.T) {
	for _, url := range []string{"postgres://u:hunter2@127.0.0.1:1/db", "postgres://u:hunter2@127.0.0.1:x%zz/db"} {
		s := closing(t, NewPostgres(url, "h"))
		_, kept := s.Keep(t.Context(), nil, roomy)
		_, operated := s.Operate(t.Context(), "me")
		for _, err := range []error{kept, operated} {
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Error(err)
			}
		}
	}
}

// A letter that was written to a removed file isn't stored. After another attempt the file in its
// place has it.
func TestAFileThatIsLost(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			return errors.Join(os.Rename(path, path+".x"), os.WriteFile(path, nil, 0o600))
		},
		"log removed": func(path string) error { return os.Remove(path + "-wal") },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "poison")
			s := closing(t, NewSQLite(path, "h"))
			keep(t, s, roomy, letter(1))
			if err := lose(path); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Keep(t.Context(), []handlers.DeadLetter{letter(2)}, roomy); err == nil {
				t.Error("kept in a file that is lost")
			}
			keep(t, s, roomy, letter(2))
			if got := ids(t, operate(t, NewSQLite(path, "h"), "me"), Filter{}, NewestFirst); len(got) == 0 || got[0] != letter(2).MessageID {
				t.Errorf("the file has %q", got)
			}
		})
	}
}

// If a disk is unmounted, the store waits for it. It makes no file in the folder below.
func TestAFolderOnAnotherDisk(t *testing.T) {
	elsewhere := testenv.OtherDisk(t)
	folder, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	s := closing(t, NewSQLite(filepath.Join(link, "poison"), "h"))
	keep(t, s, roomy, letter(1))
	turn := func(to string) {
		t.Helper()
		if err := errors.Join(os.Remove(link), os.Symlink(to, link)); err != nil {
			t.Fatal(err)
		}
	}
	turn(elsewhere)
	for range 2 {
		if _, err := s.Keep(t.Context(), []handlers.DeadLetter{letter(2)}, roomy); !errors.Is(err, database.ErrUnmounted) {
			t.Errorf("kept: %v", err)
		}
	}
	if files, err := os.ReadDir(elsewhere); err != nil || len(files) > 0 {
		t.Errorf("the folder has %v, %v", files, err)
	}
	turn(folder)
	keep(t, s, roomy, letter(2))
	if got := ids(t, operate(t, s, "me"), Filter{}, OldestFirst); fmt.Sprint(got) != "[id-1 id-2]" {
		t.Errorf("rows of %q", got)
	}
}

// For reading, a read-only server is enough.
func TestAServerThatCanOnlyBeRead(t *testing.T) {
	server := testenv.NewPostgres(t)
	s := closing(t, NewPostgres(server.URL, "h"))
	keep(t, s, roomy, letter(1))
	if err := execute(t, s, `ALTER DATABASE postgres SET default_transaction_read_only = on`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Operate(t.Context(), "me"); err == nil {
		t.Error("an operator can work")
	}
	o, err := s.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if got := ids(t, o, Filter{}, OldestFirst); fmt.Sprint(got) != "[id-1]" {
		t.Errorf("rows of %q", got)
	}
}

// Reading changes nothing.
func TestALookChangesNothing(t *testing.T) {
	server := testenv.NewPostgres(t)
	s := closing(t, NewPostgres(server.URL, "h"))
	keep(t, s, roomy, letter(1))
	o, err := s.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if _, err := o.Claim(t.Context(), number(t, o, "id-1"), false); err == nil {
		t.Error("claimed")
	}
}
