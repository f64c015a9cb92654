package database

import (
	"fmt"
	"strings"
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
		// SQLite has one type of floats, and stores any number in a column of integers.
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

// Each database has types that alter numbers in their own way.
func TestTypesThatAlterNumbers(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		db := open(t, url)
		d := db.Dialect()
		type value struct {
			arg   any
			taken bool
		}
		for kind, values := range map[string]map[string][]value{
			"PostgreSQL": {
				"money":         {{JSON("21.555"), false}, {JSON("21.55"), true}, {JSON("21"), true}},
				"numeric(6,-2)": {{JSON("70"), false}, {JSON("1234"), false}, {JSON("1200"), true}, {JSON("0"), true}},
				"numeric(3,5)":  {{JSON("0.001234"), false}, {JSON("0.00123"), true}},
				"date":          {{JSON("20260102"), false}, {"2026-01-02", true}},
			},
			"MySQL": {
				"TIME":        {{JSON("21.5"), false}, {JSON("20260102"), false}, {"21:30:00", true}},
				"DATE":        {{JSON("20260102"), false}, {"2026-01-02", true}},
				"DATETIME":    {{JSON("20260102"), false}, {"2026-01-02 03:04:05", true}},
				"YEAR":        {{JSON("5"), false}, {JSON("99"), false}, {JSON("2026"), true}, {JSON("0"), true}},
				"FLOAT":       {{JSON("123456.78"), false}, {JSON("1234.5"), true}},
				"FLOAT(7,2)":  {{JSON("21.555"), false}, {JSON("21.55"), true}},
				"DOUBLE(7,2)": {{JSON("21.555"), false}, {JSON("21.55"), true}},

				"SET('1','2')":  {{JSON("0"), false}, {JSON("2"), false}, {"2", true}},
				"ENUM('1','2')": {{JSON("2"), false}, {"1", true}},
			},
		} {
			if !strings.EqualFold(d.Name, kind) {
				continue
			}
			n := 0
			for columnType, all := range values {
				n++
				table := fmt.Sprintf("alters_%d", n)
				if err := db.Apply(t.Context(), []Statement{{Text: "CREATE TABLE " + table + " (v " + columnType + ")"}}); err != nil {
					t.Fatalf("%s: %v", columnType, err)
				}
				for _, v := range all {
					err := db.Apply(t.Context(), []Statement{{Text: "INSERT INTO " + table + " (v) VALUES (" + d.Parameter(1) + ")", Args: []any{v.arg}, Fit: true}})
					if (err == nil) != v.taken || err != nil && KindOf(err) != Fault {
						t.Errorf("%s %v: %v", columnType, v.arg, err)
					}
				}
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
		query, params := SQLite().columnsQuery(n.Text)
		got := ""
		if query != "" {
			got = fmt.Sprint(query, " ", params)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
