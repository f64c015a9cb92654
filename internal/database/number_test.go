package database

import (
	"fmt"
	"testing"
)

func TestNumbersKeepTheirValue(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		db := open(t, url)
		d := db.Dialect()
		types := map[string]string{"name": "varchar(40)", "n": "bigint", "small": "smallint", "f": "double precision", "s": "real", "d": "decimal(30,2)", "b": "boolean"}
		if d.OnDuplicateKey {
			types["s"] = "float"
		}
		columns := []string{"id integer NOT NULL"}
		for _, name := range []string{"name", "n", "small", "f", "s", "d", "b"} {
			columns = append(columns, name+" "+types[name])
		}
		if err := db.Apply(t.Context(), []Statement{{Text: d.Create("things", columns)}}); err != nil {
			t.Fatal(err)
		}
		// SQLite has one type of floats, and holds any number in a column of integers.
		lite := d.Name == "SQLite"
		for i, c := range []struct {
			column string
			arg    any
			taken  bool
			want   string
		}{
			{"name", JSON("89860045061950080012"), true, "89860045061950080012"}, {"name", JSON("21.50"), true, "21.50"}, {"name", JSON("1E-999"), true, "1E-999"}, {"name", JSON("true"), true, "true"},
			{"name", JSON("7"), true, "7"}, {"name", "1.0", true, "1.0"},
			{"n", JSON("21.5"), lite, ""}, {"n", "21.5", lite, ""}, {"n", JSON("21.0"), true, "21"}, {"n", JSON("2.1e1"), true, "21"}, {"n", JSON("9007199254740993"), true, "9007199254740993"},
			{"n", JSON("89860045061950080012"), false, ""}, {"n", "89860045061950080012", false, ""}, {"n", JSON("1E-999"), false, ""}, {"n", JSON("1e99999999999"), false, ""},
			{"small", JSON("70000"), lite, ""},
			{"f", JSON("21.50"), true, ""}, {"f", JSON("0.1"), true, ""}, {"f", JSON("3.14159265358979323846"), false, ""}, {"f", "3.14159265358979323846", false, ""}, {"f", JSON("1E-999"), false, ""}, {"f", JSON("1e999"), false, ""},
			{"f", JSON("9007199254740993"), false, ""}, {"f", JSON("-0.0"), true, ""},
			{"s", JSON("0.1"), true, ""}, {"s", JSON("0.123456789"), lite, ""}, {"s", JSON("16777217"), lite, ""},
			{"d", JSON("21.55"), true, ""}, {"d", JSON("21.550"), true, ""}, {"d", JSON("21.555"), lite, ""}, {"d", "21.555", lite, ""}, {"d", JSON("123456789012345678901234.25"), !lite, ""},
			{"b", JSON("true"), true, ""},
		} {
			for _, form := range []string{"INSERT INTO things (id, " + c.column + ") VALUES (%d, %s)", "UPDATE things SET id = %d, " + c.column + " = %s"} {
				s := Statement{Text: fmt.Sprintf(form, i, d.Parameter(1)), Args: []any{c.arg}, Fit: true}
				err := db.Apply(t.Context(), []Statement{s})
				if (err == nil) != c.taken || err != nil && KindOf(err) != Fault {
					t.Errorf("%s %v: %v", s.Text, c.arg, err)
				}
			}
			if c.want == "" {
				continue
			}
			got := ""
			err := db.Query(t.Context(), Statement{Text: fmt.Sprintf("SELECT %s FROM things WHERE id = %d LIMIT 1", c.column, i)}, func(scan func(...any) error) error {
				var v any
				err := scan(&v)
				if b, ok := v.([]byte); ok {
					v = string(b)
				}
				got = fmt.Sprint(v)
				return err
			})
			if got != c.want || err != nil {
				t.Errorf("%s %v: %s, %v", c.column, c.arg, got, err)
			}
		}
	})
}

func TestFilled(t *testing.T) {
	for text, want := range map[string]string{
		"INSERT INTO t (a, b) VALUES (:x, now()), (1, :y)":                             "SELECT a, b FROM t WHERE 1 = 0 [0 1]",
		`insert into "s"."t" as q ("a", b) values (:x + 1, lower(:y))`:                 "",
		"INSERT INTO t (a, b) VALUES (:x, ':no') ON CONFLICT (a) DO UPDATE SET b = :y": "SELECT a, b FROM t WHERE 1 = 0 [0 1]",
		"INSERT INTO t (a, b) VALUES (:x, 1) ON CONFLICT (a) DO UPDATE SET b = (:y)":   "SELECT a FROM t WHERE 1 = 0 [0]",
		"UPDATE t SET a = :x, b = :y + 1, c = (:z) WHERE a = :k":                       "SELECT a FROM t WHERE 1 = 0 [0]",
		"UPDATE t SET a = CASE WHEN a < :x THEN :x ELSE a END, b = :y":                 "SELECT b FROM t WHERE 1 = 0 [2]",
		"DELETE FROM t WHERE a = :x":                                                   "",
	} {
		n, err := SQLite().Named(text)
		if err != nil {
			t.Fatal(err)
		}
		query, params := SQLite().filled(n.Text)
		got := ""
		if query != "" {
			got = fmt.Sprint(query, " ", params)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
