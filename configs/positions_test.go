package configs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPositions(t *testing.T) {
	src := strings.Join([]string{
		/* 1 */ `# a comment with [brackets] and "quotes"`,
		/* 2 */ `[host]`,
		/* 3 */ `name = "x" # = y`,
		/* 4 */ `log  = { level = "a}b", format = 'c]' }`,
		/* 5 */ `[transport."a b".topic.x]`,
		/* 6 */ `list = [1, [2, 3], { deep = true }, """`,
		/* 7 */ `text = "no key" """, 4]`,
		/* 8 */ `a.b."c d" = 1979-05-27 07:32:00`,
		/* 9 */ `[[rule]]`,
		/* 10 */ `x = 1`,
		/* 11 */ `[[rule]]`,
		/* 12 */ `x = 2`,
		/* 13 */ `[rule.sub]`,
		/* 14 */ `"\u0041" = '''`,
		/* 15 */ `y = 1'''`,
		/* 16 */ `z = ""`,
	}, "\n")
	got := scan(src)
	want := map[string]Position{
		"host": {2, 2}, "host.name": {3, 1}, "host.log": {4, 1}, "host.log.level": {4, 10}, "host.log.format": {4, 25},
		"transport": {5, 2}, `transport."a b"`: {5, 12}, `transport."a b".topic`: {5, 18}, `transport."a b".topic.x`: {5, 24},
		`transport."a b".topic.x.list`: {6, 1}, `transport."a b".topic.x.list[0]`: {6, 9}, `transport."a b".topic.x.list[1]`: {6, 12},
		`transport."a b".topic.x.list[1][0]`: {6, 13}, `transport."a b".topic.x.list[1][1]`: {6, 16},
		`transport."a b".topic.x.list[2]`: {6, 20}, `transport."a b".topic.x.list[2].deep`: {6, 22},
		`transport."a b".topic.x.list[3]`: {6, 37}, `transport."a b".topic.x.list[4]`: {7, 22},
		`transport."a b".topic.x.a`: {8, 1}, `transport."a b".topic.x.a.b`: {8, 3}, `transport."a b".topic.x.a.b."c d"`: {8, 5},
		"rule": {9, 3}, "rule[0]": {9, 3}, "rule[0].x": {10, 1}, "rule[1]": {11, 3}, "rule[1].x": {12, 1},
		"rule[1].sub": {13, 7}, "rule[1].sub.A": {14, 1}, "rule[1].sub.z": {16, 1},
	}
	if diff := cmp.Diff(want, got.at); diff != "" {
		t.Error(diff)
	}
	for path, at := range map[string]Position{
		"host.admin": {2, 2}, "host.log.level": {4, 10}, "nowhere.at.all": {1, 1}, `transport."a b".topic.x.list[7].deep`: {6, 1},
	} {
		if got := got.find(path); got != at {
			t.Errorf("find(%q) = %v, want %v", path, got, at)
		}
	}
}

func TestPositionsOfDeepNesting(t *testing.T) {
	got := scan("a = 1\nb = " + strings.Repeat("[", maxDepth+1))
	if want := (Position{2, 5 + maxDepth}); got.tooDeep == nil || *got.tooDeep != want {
		t.Errorf("too deep at %v, want %v", got.tooDeep, want)
	}
}

// FuzzScanner holds the scanner against the TOML parser: whatever that accepts has the same keys
// in the same order.
func FuzzScanner(f *testing.F) {
	f.Add("a = 1\n[b.\"c d\"]\ne.f = { g = [ { h = 1 }, 'x' ] }\n[[i]]\nj = \"\"\"\nk = 1\"\"\"\"\"\n[[i]]\n[i.l]\n")
	f.Add("a = [\n  1, # one ]\n  { b = '}' },\n]\nc = 07:32:00\nd = +inf\n\"\\\"\" = '\\'\n")
	f.Add("\xef\xbb\xbfa.b = true\r\n[a.c]\r\nd = \"\\\\\"\r\n")
	f.Add("'' = 1\n\"\\x41\\u0042\\U00000043\" = {}\n")
	f.Fuzz(func(t *testing.T, src string) {
		got := scan(src)
		if got.tooDeep != nil {
			return
		}
		var tree map[string]any
		meta, err := decodeTOML(src, &tree)
		if err != nil {
			return
		}
		var want [][]string
		for _, key := range meta.Keys() {
			want = append(want, []string(key))
		}
		var whole [][]string
		for _, key := range got.keys {
			if !key.part {
				whole = append(whole, key.names)
			}
		}
		if diff := cmp.Diff(want, whole); diff != "" {
			t.Errorf("%q: keys differ (-parser +scanner):\n%s", src, diff)
		}
		lines := strings.Split(src, "\n")
		for path, at := range got.at {
			if at.Line < 1 || at.Line > len(lines) || at.Column < 1 || at.Column > len(lines[at.Line-1]) {
				t.Errorf("%q: %s is said to be at %v", src, path, at)
			}
		}
	})
}

func TestPlacesInsideStrings(t *testing.T) {
	src := "a = \"x\\ty\\u00e9z\"\nb = 'one'\n[c]\nd = { e = [ \"\"\"\nfirst\nsecond \\\n   third\\\\\"\"\"\"\" ] }\nf = '''\r\nlong'''\ng = \"\"\n"
	at := scan(src)
	for _, c := range []struct {
		path, text string
		offset     int
		want       Position
	}{
		{"a", "x\tyéz", 0, Position{1, 6}},
		{"a", "x\tyéz", 1, Position{1, 7}},
		{"a", "x\tyéz", 2, Position{1, 9}},
		{"a", "x\tyéz", 5, Position{1, 16}},
		{"a", "x\tyéz", 6, Position{1, 17}},
		{"b", "one", 3, Position{2, 9}},
		{"c.d.e[0]", "first\nsecond third\\\"\"", 0, Position{5, 1}},
		{"c.d.e[0]", "first\nsecond third\\\"\"", 6, Position{6, 1}},
		{"c.d.e[0]", "first\nsecond third\\\"\"", 13, Position{7, 4}},
		{"c.d.e[0]", "first\nsecond third\\\"\"", 20, Position{7, 12}},
		{"c.f", "long", 2, Position{9, 3}},
	} {
		if got, ok := at.inside(c.path, c.text, c.offset); !ok || got != c.want {
			t.Errorf("byte %d of %s is at %v, %v, want %v", c.offset, c.path, got, ok, c.want)
		}
	}
	for path, text := range map[string]string{"b": "two", "c.g": "", "c": "x", "nowhere": "x"} {
		if got, ok := at.inside(path, text, 0); ok {
			t.Errorf("%q of %s is said to be at %v", text, path, got)
		}
	}
}

// FuzzLiteral holds the walk through a string against the TOML parser.
func FuzzLiteral(f *testing.F) {
	for _, text := range []string{`"a\tb"`, `'a\tb'`, "\"\"\"\na\\\n  b\"\"\"\"\"", "'''\r\na''b'''", `"\x41\u00e9\U0001F600\e"`, `""""""`, "\"\"\"\\\"\"\"\"\""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, value string) {
		var tree map[string]any
		if _, err := decodeTOML("s = "+value, &tree); err != nil {
			return
		}
		want, ok := tree["s"].(string)
		if !ok || len(tree) > 1 || strings.HasPrefix(strings.TrimLeft(value, " \t"), "#") {
			return
		}
		value = strings.TrimLeft(value, " \t")
		got, at := literal(value)
		if got != want {
			t.Errorf("%q is %q, want %q", value, got, want)
		}
		for i, pos := range at {
			if pos > len(value) || i > 0 && pos < at[i-1] {
				t.Errorf("%q: byte %d of %d is at %d", value, i, len(at), pos)
			}
		}
	})
}
