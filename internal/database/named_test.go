package database

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestNamed(t *testing.T) {
	pg, my, lite := postgresDialect, mysqlDialect, sqliteDialect
	for _, c := range []struct {
		d          Dialect
		text, want string
		params     string
	}{
		{pg, "INSERT INTO t VALUES (:device, :payload.temp, :device);", "INSERT INTO t VALUES ($1, $2, $3)", "device payload.temp device"},
		{my, "INSERT INTO t VALUES (:device, :meta.header.x)", "INSERT INTO t VALUES (?, ?)", "device meta.header.x"},
		{lite, " UPDATE t SET a = :a WHERE b = ':b' -- :c\n AND c = :d /* :e */ ;\n", "UPDATE t SET a = ? WHERE b = ':b' -- :c\n AND c = ? /* :e */", "a d"},
		{pg, `SELECT :a::int, 'it''s :x', "odd :name", a[1:2], E'\':x', b'0', e'', note'\', :z`, `SELECT $1::int, 'it''s :x', "odd :name", a[1:2], E'\':x', b'0', e'', note'\', $2`, "a z"},
		{pg, "SELECT $$ :x $$, $t$ $$ :x $t$, data ? 'key', /* a /* :b */ :c */ :d", "SELECT $$ :x $$, $t$ $$ :x $t$, data ? 'key', /* a /* :b */ :c */ $1", "d"},
		{my, "SELECT '\\':x', `a``:b`, @n := :v, \"\\\":y\" # :z", "SELECT '\\':x', `a``:b`, @n := ?, \"\\\":y\" # :z", "v"},
		{lite, "SELECT '\\', :a, \"b\"", "SELECT '\\', ?, \"b\"", "a"},
		{pg, "SELECT :a.b., :_c1", "SELECT $1., $2", "a.b _c1"},
	} {
		got, err := c.d.Named(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		var names []string
		for _, p := range got.Params {
			names = append(names, p.Name)
			if !strings.HasPrefix(c.text[p.Offset:], ":"+p.Name) {
				t.Errorf("%s: %s isn't at %d", c.text, p.Name, p.Offset)
			}
		}
		if got.Text != c.want || strings.Join(names, " ") != c.params {
			t.Errorf("%s became\n%s with %v, want\n%s with %s", c.text, got.Text, names, c.want, c.params)
		}
	}
	for _, c := range []struct {
		d        Dialect
		text, at string
	}{
		{pg, "SELECT 'abc", "7: this string doesn't end"}, {pg, "SELECT $a$ $b$", "7: this string doesn't end"}, {pg, "SELECT /* /* */", "7: this comment doesn't end"},
		{my, "SELECT `a", "7: this name in quotes doesn't end"}, {pg, "SELECT $1", "7: parameters have names here, such as :device"}, {lite, "SELECT ?", "7: parameters have names here, such as :device"},
		{lite, "SELECT 1; DROP TABLE t", "8: this is more than one statement"}, {my, " ; ", "0: is empty"}, {my, "", "0: is empty"},
	} {
		_, err := c.d.Named(c.text)
		e, ok := errors.AsType[*NamedError](err)
		if !ok || fmt.Sprintf("%d: %s", e.Offset, e.Message) != c.at {
			t.Errorf("%s: %v at %v, want %s", c.text, err, e, c.at)
		}
	}
}

func FuzzNamed(f *testing.F) {
	f.Add("SELECT :a, 'x', $$ $$, `b`, -- c\n /* */ :d.e")
	f.Fuzz(func(t *testing.T, text string) {
		for _, d := range []Dialect{postgresDialect, mysqlDialect, sqliteDialect} {
			n, err := d.Named(text)
			if err != nil {
				continue
			}
			last := -1
			for _, p := range n.Params {
				if p.Offset <= last || !strings.HasPrefix(text[p.Offset:], ":"+p.Name) {
					t.Errorf("%q: %q at %d", text, p.Name, p.Offset)
				}
				last = p.Offset
			}
		}
	})
}
