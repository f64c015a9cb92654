package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/internal/filewatch"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

func TestMain(m *testing.M) { await.Main(m) }

// hash is that of the token of all devices.
var hash = device.HashToken([]byte("token"))

// lines reads a file of lines "NAME KEY=VALUE...".
func lines(path string) (List, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all := List{}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		labels := map[string]string{}
		for _, f := range fields[1:] {
			key, value, ok := strings.Cut(f, "=")
			if !ok {
				return nil, fmt.Errorf("%q is no label", f)
			}
			labels[key] = value
		}
		all[fields[0]] = device.Listed{Labels: labels, Tokens: []device.TokenHash{hash}}
	}
	return all, nil
}

// canonical accepts names that begin with d or D.
func canonical(name string) (string, error) {
	name = strings.ToLower(name)
	if !strings.HasPrefix(name, "d") {
		return "", errors.New("no device")
	}
	return name, nil
}

type fixture struct {
	*testing.T
	*File
	path    string
	log     bytes.Buffer
	version time.Time
}

func open(t *testing.T, text string) *fixture {
	t.Helper()
	f := &fixture{T: t, path: filepath.Join(t.TempDir(), "devices"), version: time.Unix(1000, 0)}
	f.write(text)
	var err error
	if f.File, err = Open(f.path, lines, slog.New(slog.NewTextHandler(&f.log, nil))); err != nil {
		t.Fatal(err)
	}
	return f
}

// write writes the file with a new modification time.
func (f *fixture) write(text string) {
	f.Helper()
	f.version = f.version.Add(time.Second)
	if err := errors.Join(os.WriteFile(f.path, []byte(text), 0o600), os.Chtimes(f.path, f.version, f.version)); err != nil {
		f.Fatal(err)
	}
}

// rests checks the file as often as a change needs to be loaded.
func (f *fixture) rests() {
	f.Look()
	f.Look()
}

func (f *fixture) view() *view {
	f.Helper()
	v, err := f.View("devices", canonical)
	if err != nil {
		f.Fatal(err)
	}
	return v.(*view)
}

func TestView(t *testing.T) {
	f := open(t, "D2 site=north\nd1 site=north kind=lock\nd3\nx\n")
	v := f.view()
	for name, want := range map[string]bool{"d1": true, "d2": true, "D2": false, "x": false, "": false} {
		if v.Known(name) != want {
			t.Errorf("%q is known: %v", name, !want)
		}
	}
	if diff := cmp.Diff(map[string]string{"site": "north"}, v.Labels("d2")); diff != "" || v.Labels("x") != nil {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{hash.String()}, texts(v.Tokens("d2"))); diff != "" || v.Tokens("x") != nil {
		t.Error(diff)
	}
	for _, c := range []struct {
		labels map[string]string
		want   []string
	}{
		{nil, []string{"d1", "d2", "d3"}},
		{map[string]string{"site": "north"}, []string{"d1", "d2"}},
		{map[string]string{"site": "north", "kind": "lock"}, []string{"d1"}},
		{map[string]string{"site": "south"}, nil},
		{map[string]string{"kind": ""}, nil},
	} {
		if diff := cmp.Diff(c.want, v.Select(c.labels)); diff != "" {
			t.Errorf("%v: %s", c.labels, diff)
		}
	}
	if !strings.Contains(f.log.String(), "devices=1 such_as=x") {
		t.Errorf("the log says nothing of x: %s", &f.log)
	}
}

func texts(hashes []device.TokenHash) (all []string) {
	for _, h := range hashes {
		all = append(all, h.String())
	}
	return all
}

func TestTwoNamesOfOneDevice(t *testing.T) {
	f := open(t, "d1\nD1\n")
	if _, err := f.View("devices", canonical); err == nil || !strings.Contains(err.Error(), `"D1" and "d1" are one device of transport devices`) {
		t.Error(err)
	}
}

func TestReload(t *testing.T) {
	f := open(t, "d1\nd2\n")
	v := f.view()
	var gone []string
	notified := 0
	v.Watch(func(names []string) { notified++; gone = names })

	f.rests()
	if notified != 0 {
		t.Fatal("the watchers were notified of a file that didn't change")
	}
	f.write("d2\nd3\n")
	f.Look()
	if notified != 0 || !v.Known("d1") {
		t.Fatal("a file that still changes was loaded")
	}
	f.Look()
	if notified != 1 || v.Known("d1") || !v.Known("d3") || f.Devices() != 2 {
		t.Fatalf("notified %d times, list %v", notified, v.Select(nil))
	}
	if diff := cmp.Diff([]string{"d1"}, gone); diff != "" {
		t.Error(diff)
	}
	f.rests()
	if notified != 1 {
		t.Error("the watchers were notified of one change twice")
	}
}

// A version with an error is logged once, and the version before stays.
func TestBrokenVersions(t *testing.T) {
	for name, breaks := range map[string]func(f *fixture){
		"not to be read": func(f *fixture) { f.write("d1 junk\n") },
		"twice":          func(f *fixture) { f.write("d1\nD1\n") },
		"gone": func(f *fixture) {
			if err := os.Remove(f.path); err != nil {
				f.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, "d1\n")
			v := f.view()
			v.Watch(func([]string) {})
			breaks(f)
			f.rests()
			f.rests()
			if !v.Known("d1") {
				t.Error("the list from before is gone")
			}
			if n := strings.Count(f.log.String(), "the list from before stays"); n != 1 {
				t.Errorf("logged %d times: %s", n, &f.log)
			}
			f.write("d2\n")
			f.rests()
			if v.Known("d1") || !v.Known("d2") {
				t.Error("what came after isn't taken up")
			}
		})
	}
}

func TestStart(t *testing.T) {
	f := open(t, "d1\n")
	synctest.Test(t, func(t *testing.T) {
		file, err := Open(f.path, lines, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		v, err := file.View("devices", canonical)
		if err != nil {
			t.Fatal(err)
		}
		file.Start()
		f.write("d2\n")
		time.Sleep(2*filewatch.Interval + time.Second)
		synctest.Wait()
		if v.Known("d1") || !v.Known("d2") {
			t.Error("the change isn't taken up")
		}
		file.Close()
	})
}

func TestOpenWithoutAFile(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "devices"), lines, slog.New(slog.DiscardHandler)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// After any sequence of versions, a view has the devices of the last valid version, and the
// watchers get each lost device once.
func TestVersions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		versions := rapid.SliceOfN(rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c", "d"}), rapid.SampledFrom([]string{"", "1", "2"})), 1, 6).Draw(t, "versions")
		var now List
		v := &view{canonical: func(name string) (string, error) { return name, nil }}
		v.now.Store(&list{})
		f := &File{read: func(string) (List, error) { return now, nil }, views: []*view{v}, log: slog.New(slog.DiscardHandler)}
		before := map[string]bool{}
		for _, version := range versions {
			now = List{}
			for name, label := range version {
				now[name] = device.Listed{Labels: map[string]string{"l": label}}
			}
			gone, err := f.reload()
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range gone[v] {
				if _, still := now[name]; still || !before[name] {
					t.Fatalf("%s is told as gone", name)
				}
				delete(before, name)
			}
			for name := range before {
				if _, still := now[name]; !still {
					t.Fatalf("%s isn't told as gone", name)
				}
			}
			before = map[string]bool{}
			for name := range now {
				before[name] = true
			}
			if diff := cmp.Diff(slices.Sorted(maps.Keys(now)), v.Select(nil)); diff != "" {
				t.Fatal(diff)
			}
			for _, name := range v.Select(map[string]string{"l": "1"}) {
				if version[name] != "1" {
					t.Fatalf("%s has l = %q", name, version[name])
				}
			}
		}
	})
}
