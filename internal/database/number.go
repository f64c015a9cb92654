package database

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// JSON is an argument: a JSON number, true or false, as it was written. Apply and Explain convert
// it for the column that its parameter fills. For a column of text it becomes its JSON text. For a
// column of numbers it becomes a number that the database prints with the same value. If there is
// no such number, the error is a [Fault] with both values.
//
// Databases silently round a number to the type of its column. So this package looks the column
// up: in INSERT INTO t (a) VALUES (:x), and in a = :x after SET or UPDATE. A parameter in any
// other place, such as in an expression, has the type that the database gives it. If the database
// gives none, the number must fit into an int64 or a float64.
type JSON string

// kind is the kind of values that a column has.
type kind int

const (
	anything kind = iota // unknown, or values of any type
	whole
	single // a float of 32 bits
	double
	decimal
	number // an int64 or a float64
	text
	unlike // dates, sets and others in which a number means something else
)

// column is the column that a parameter fills. The zero value means no column.
type column struct {
	kind kind
	// name is the database's name of its type.
	name string
	// places is how many digits a number has after the point, if scaled is true. With -2 a number
	// is a multiple of 100.
	places int
	scaled bool
	// digits is how many digits of a float the database prints. With 0 the database prints as many
	// as are needed.
	digits int
}

// years bounds the numbers that MySQL reads as a year of the last or of this century.
const years = 100

// fitsPlaces reports whether the column keeps all digits of a number.
func (c column) fitsPlaces(value jsontext.Decimal) bool {
	return !c.scaled || value.Digits == "" || value.Exponent >= -c.places
}

// roundedTo returns how the column rounds a number with too many digits.
func (c column) roundedTo(f float64) string {
	if c.places < 0 {
		return "a multiple of 1" + strings.Repeat("0", -c.places)
	}
	return strconv.FormatFloat(f, 'f', c.places, 64)
}

// maxDigits is the most digits of a whole number that is written without an exponent.
const maxDigits = 100

// convert returns an argument for the column. It converts JSON. It checks a text that is a number
// in the same way, since the database would convert it. Other arguments it returns unchanged.
func (c column) convert(arg any) (any, error) {
	written, isJSON := "", false
	switch v := arg.(type) {
	case JSON:
		written, isJSON = string(v), true
	case string:
		written = v
	case time.Time, []byte:
		if c.kind == whole || c.kind == single || c.kind == double || c.kind == decimal {
			return nil, fmt.Errorf("a %T doesn't fit into a column of type %s", v, c.name)
		}
		return arg, nil
	default:
		return arg, nil
	}
	value, ok := jsontext.ParseDecimal(written)
	switch {
	case isJSON && c.kind == text:
		return written, nil
	case isJSON && (written == "true" || written == "false"):
		return written == "true", nil
	case isJSON && !ok:
		return nil, fmt.Errorf("the number %s has too large an exponent", written)
	case !ok, !isJSON && (c.kind == text || c.kind == anything || c.kind == unlike):
		return arg, nil
	case c.kind == unlike:
		return nil, fmt.Errorf("the number %s doesn't fit into a column of type %s, which has no numbers", written, c.name)
	}
	return c.convertNumber(written, value)
}

// convertNumber returns a number as an argument for the column. written is the number's text, and
// value is its value.
func (c column) convertNumber(written string, value jsontext.Decimal) (any, error) {
	refuse := func(becomes string) (any, error) {
		return nil, fmt.Errorf("the number %s would become %s in a column of type %s", written, becomes, c.name)
	}
	digits, isWhole := value.Whole(maxDigits)
	i, err := strconv.ParseInt(digits, 10, 64)
	fits := isWhole && err == nil
	switch {
	case c.name == yearType && fits && 0 < i && i < years:
		return refuse("a year of four digits")
	case fits && (c.kind == whole || c.kind == number || c.kind == anything):
		return i, nil
	case c.kind == whole && isWhole:
		return digits, nil // if the column isn't larger than an int64, the database refuses it
	case c.kind == decimal && c.fitsPlaces(value):
		return written, nil
	}
	bits := 64
	if c.kind == single {
		bits = 32
	}
	f, err := strconv.ParseFloat(written, bits)
	if err != nil {
		return refuse("infinite")
	}
	printed := strconv.FormatFloat(f, 'g', cmp.Or(c.digits, -1), bits)
	if kept, _ := jsontext.ParseDecimal(printed); kept != value {
		return refuse(printed)
	}
	switch {
	case c.kind == whole:
		return refuse(strconv.FormatFloat(f, 'f', 0, 64))
	case c.kind == decimal || !c.fitsPlaces(value):
		return refuse(c.roundedTo(f))
	default:
		return f, nil
	}
}

// nameIn matches a name in a statement, with or without quotes. The patterns below find the table
// and the columns of INSERT and UPDATE statements.
const nameIn = "(?:[\\w$]+|\"[^\"]+\"|`[^`]+`)"

var (
	insertInto = regexp.MustCompile(`(?is)^\s*(?:insert|replace)\s+(?:or\s+\w+\s+|ignore\s+)?into\s+(` + nameIn + `(?:\.` + nameIn + `)*)(?:\s+as\s+` + nameIn + `)?\s*\(([^()]*)\)\s*values\s*\(`)
	updateOf   = regexp.MustCompile(`(?is)^\s*update\s+(?:only\s+)?(` + nameIn + `(?:\.` + nameIn + `)*)(?:\s+(?:as\s+)?` + nameIn + `)?\s+set\s`)
	assigned   = regexp.MustCompile(`(?is)(?:\bset\s+|\bupdate\s+|,\s*)(?:` + nameIn + `\.)?(` + nameIn + `)\s*=\s*$`)
	wherever   = regexp.MustCompile(`(?is)\bwhere\b`)
	ends       = regexp.MustCompile(`(?is)^\s*(?:$|[,)]|where\b|on\b|returning\b)`)
)

// columnsQuery returns a query without rows for the columns that parameters fill. params has the
// index of the parameter of each column. The query is "" for a statement that columnsQuery can't
// parse.
func (d Dialect) columnsQuery(statement string) (query string, params []int) {
	var table string
	var names, columns []string
	start := 0
	if m := insertInto.FindStringSubmatchIndex(statement); m != nil {
		table, start = statement[m[2]:m[3]], m[1]
		for name := range strings.SplitSeq(statement[m[4]:m[5]], ",") {
			names = append(names, strings.TrimSpace(name))
		}
	} else if m := updateOf.FindStringSubmatchIndex(statement); m != nil {
		table = statement[m[2]:m[3]]
	} else {
		return "", nil
	}
	// n counts the parameters, and depth the open parentheses. In the values of an INSERT, value
	// is the index of the current value of its row, and before is where it begins.
	n, depth, value, before, inValues := 0, 0, 0, start, names != nil
	if inValues {
		depth = 1
	}
	for i := 0; i < len(statement); i++ {
		if end, _ := d.skipQuoted(statement, i); end > i {
			i = end - 1
			continue
		}
		c := statement[i]
		switch {
		case c == '?' && !d.Numbered, c == '$' && d.Numbered && i+1 < len(statement) && '0' <= statement[i+1] && statement[i+1] <= '9':
			at := i
			for d.Numbered && i+1 < len(statement) && '0' <= statement[i+1] && statement[i+1] <= '9' {
				i++
			}
			n++
			if at < start || !ends.MatchString(statement[i+1:]) {
				continue
			}
			if inValues && depth == 1 && value < len(names) && strings.TrimSpace(statement[before:at]) == "" {
				columns, params = append(columns, names[value]), append(params, n-1)
			} else if m := assigned.FindStringSubmatch(statement[:at]); m != nil && depth == 0 && !wherever.MatchString(statement[start:at]) {
				columns, params = append(columns, m[1]), append(params, n-1)
			}
		case i < start:
		case c == '(':
			if depth++; depth == 1 {
				value, before = 0, i+1
			}
		case c == ')':
			depth--
		case c == ',' && depth == 1:
			value, before = value+1, i+1
		case depth == 0 && c > ' ' && c != ',':
			inValues = false
		}
	}
	if len(columns) == 0 {
		return "", nil
	}
	return "SELECT " + strings.Join(columns, ", ") + " FROM " + table + " WHERE 1 = 0", params
}

// filled has the columns that the parameters of statements fill, by the texts of the statements.
type filled map[string][]column

// convertAll returns the statements with their arguments converted for the columns.
func (f filled) convertAll(all []Statement, columnsOf func(Statement) ([]column, error)) ([]Statement, error) {
	fitted := slices.Clone(all)
	for n, s := range all {
		if !s.Fit {
			continue
		}
		columns, ok := f[s.Text]
		if !ok {
			var err error
			if columns, err = columnsOf(s); err != nil {
				return nil, err
			}
			f[s.Text] = columns
		}
		fitted[n].Args = make([]any, len(s.Args))
		for i, arg := range s.Args {
			var err error
			if fitted[n].Args[i], err = columns[i].convert(arg); err != nil {
				return nil, &fault{err}
			}
		}
	}
	return fitted, nil
}

// sqlColumns returns the columns that the parameters of a statement fill. kindOf converts the
// column types of the connection's driver.
func sqlColumns(ctx context.Context, conn *sql.Conn, d Dialect, s Statement, kindOf func(*sql.ColumnType) column) ([]column, error) {
	all := make([]column, len(s.Args))
	query, params := d.columnsQuery(s.Text)
	if query == "" {
		return all, nil
	}
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	types, err := rows.ColumnTypes()
	if err := errors.Join(err, rows.Close(), rows.Err()); err != nil {
		return nil, err
	}
	for i, t := range types {
		all[params[i]] = kindOf(t)
	}
	return all, nil
}

// sqliteColumn returns a column by SQLite's rules of type affinity. In SQLite every column of
// numbers accepts fractions.
func sqliteColumn(t *sql.ColumnType) column {
	name := strings.ToUpper(t.DatabaseTypeName())
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(name, w) })
	}
	c := column{name: name}
	switch {
	case has("INT"):
		c.kind = number
	case has("CHAR", "CLOB", "TEXT"):
		c.kind = text
	case name == "", name == "ANY", has("BLOB"):
	case has("REAL", "FLOA", "DOUB"): //nolint:misspell // as in SQLite's rules
		c.kind = double
	default:
		c.kind = number
	}
	return c
}

// yearType is MySQL's name of the type of years.
const yearType = "YEAR"

// floatDigits is how many digits of a FLOAT MySQL prints.
const floatDigits = 6

func mysqlColumn(t *sql.ColumnType) column {
	c := column{name: t.DatabaseTypeName()}
	_, scale, scaled := t.DecimalSize()
	switch name := c.name; {
	case strings.HasSuffix(name, "INT"), name == yearType, name == "BIT":
		c.kind = whole
	case name == "DECIMAL":
		c.kind = decimal
	case name == "FLOAT":
		c.kind, c.digits = single, floatDigits
	case name == "DOUBLE":
		c.kind = double
	case strings.HasSuffix(name, "CHAR"), strings.HasSuffix(name, "TEXT"), name == "JSON":
		c.kind = text
	case name == "ENUM", name == "SET", name == "DATE", name == "TIME", name == "DATETIME", name == "TIMESTAMP":
		c.kind = unlike // a number is the index of a word, or the digits of a time
	}
	if scaled && scale < 31 && c.kind != anything {
		c.places, c.scaled = int(scale), true
	}
	return c
}

// moneyOID is the OID of PostgreSQL's type money, which pgtype doesn't have.
const moneyOID = 790

// postgresColumn returns a column of a type with a modifier, which is -1 if there is none.
func postgresColumn(oid uint32, modifier int32, name string) column {
	c := column{name: name}
	switch oid {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID:
		c.kind = whole
	case pgtype.Float4OID:
		c.kind = single
	case pgtype.Float8OID:
		c.kind = double
	case pgtype.NumericOID:
		c.kind = decimal
		if modifier >= 4 {
			c.places, c.scaled = int((modifier-4)&0x7ff^1024)-1024, true
		}
	case moneyOID:
		c.kind, c.name, c.places, c.scaled = decimal, "money", 2, true
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.NameOID, pgtype.JSONOID, pgtype.JSONBOID:
		c.kind = text
	}
	return c
}
