package configs

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// wholeFiles are configurations that the tests of places break, each in another style.
var wholeFiles = []string{
	"[transport.broker]\ntype = \"amqp\"\nport = 5672\ntls = { ca = \"ca.pem\" }\n\n[pipeline.a]\nfrom = 'broker:in' # ü\nmiddleware = [\"note\", { type = \"retry\",\n  max_retries = 3 }]\non_error = \"drop\"\n",
	"\"a b\" = 1\r\n\"host.x\".y = 2\r\n[host]\r\n\tname = \"漢字\"\r\n[[test]]\r\nname = \"\"\"\r\none\\\r\n  two\"\"\"\r\nsteps = [{ wait = \"1s\" }]",
	"\xef\xbb\xbfhost.name = 'x'\nhost.log = { level = \"loud\" }\n[store]\ntype = \"postgres\"\nurl = '''\npostgres://x'''\n[transport]\nd.type = \"tcp\"\nd.idle_timeout = 5 minutes",
}

// damages are put into a file, or take the place of one of its bytes.
var damages = []string{"", "\"", "'", "\"\"\"", "=", "[", "]", "{", "}", ",", ".", "#", "\\", "\n", "\r", "\t", "0", "é", "漢", "\x00", "\x7f", "\xff", "\ufeff", "\n[host]\n", " x = 1 "}

// What is said of a file has a place inside the file and inside its line, and what is shown of the
// line has the sign below it.
func TestPlacesAreInsideTheFile(t *testing.T) {
	plugins := fakePlugins()
	check := func(src string) {
		t.Helper()
		_, warnings, err := Parse("c", []byte(src), Options{Plugins: plugins, LookupEnv: testEnv})
		problems, ok := errors.AsType[Problems](err)
		if err != nil && !ok {
			t.Fatalf("%q: %v", src, err)
		}
		checkPlaces(t, src, append(problems, warnings...))
		if _, err := ParseInventory("c", []byte(src)); err != nil {
			problems, _ = errors.AsType[Problems](err)
			checkPlaces(t, src, problems)
		}
	}
	for _, whole := range wholeFiles {
		for at := 0; at <= len(whole); at += 2 {
			check(whole[:at])
			damage := damages[at%len(damages)]
			check(whole[:at] + damage + whole[at:])
			check(whole[:at] + damage + whole[min(at+1, len(whole)):])
			check(whole[:at] + damages[(at*7+3)%len(damages)] + whole[at:])
		}
		lines := strings.SplitAfter(whole, "\n")
		for i, line := range lines {
			check(strings.Join(lines[:i], "") + line + line + strings.Join(lines[i+1:], ""))
			check(strings.Join(lines[:i], "") + strings.Join(lines[i+1:], ""))
			check(whole + "\n" + line)
		}
	}
}

func FuzzPlaces(f *testing.F) {
	for _, whole := range wholeFiles {
		f.Add(whole)
	}
	plugins := fakePlugins()
	f.Fuzz(func(t *testing.T, src string) {
		_, warnings, err := Parse("c", []byte(src), Options{Plugins: plugins, LookupEnv: testEnv})
		problems, _ := errors.AsType[Problems](err)
		checkPlaces(t, src, append(problems, warnings...))
	})
}

func checkPlaces(t *testing.T, src string, problems []Problem) {
	t.Helper()
	lines := strings.Split(src[markLength(src):], "\n")
	if n := len(lines); n > 1 && lines[n-1] == "" {
		lines = lines[:n-1]
	}
	for _, p := range problems {
		if p.Line < 1 || p.Line > len(lines) {
			t.Errorf("%q: %v is outside of the file", src, p)
			continue
		}
		line := strings.TrimSuffix(lines[p.Line-1], "\r")
		if p.Column < 1 || p.Column > max(1, len(line)) {
			t.Errorf("%q: %v is outside of its line %q", src, p, line)
			continue
		}
		if utf8.ValidString(line) && line != "" && !utf8.RuneStart(line[p.Column-1]) {
			t.Errorf("%q: %v is inside a character of %q", src, p, line)
		}
		if strings.Contains(p.Message, "\n") {
			t.Errorf("%q: %v has several lines", src, p)
		}
		if shown := strings.Split(p.Excerpt, "\n"); p.Excerpt != "" && (len(shown) != 3 || strings.TrimLeft(shown[2], " ") != "^") {
			t.Errorf("%q: %v shows %q", src, p, p.Excerpt)
		}
	}
}
