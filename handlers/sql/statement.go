package sql

import (
	"strings"

	"github.com/pentrough/pentrough/internal/database"
)

// template is a statement whose arguments are a message's values.
type template struct {
	text string
	args []field
}

func (t *template) of(v values) database.Statement {
	s := database.Statement{Text: t.text, Args: make([]any, len(t.args))}
	for i, f := range t.args {
		s.Args[i] = v[f]
	}
	return s
}

// change writes what a message of one kind does to a device's row.
type change struct {
	dialect    database.Dialect
	table, key string
	columns    columns
	// sets are the fields that it sets, counts the one that it raises by one, or "".
	sets   []field
	counts field
	// fence says by its arguments, which are old and new values, that the message is newer than the row.
	fence func(had, comes func(field) string) string
}

func (c *change) column(f field) string {
	if f == device {
		return c.dialect.Quote(c.key)
	}
	return c.dialect.Quote(c.columns[f])
}

// had is a field of the row as it is. Where the table allows it, there may be none yet.
func (c *change) had(f field) string {
	if zero, ok := initial[f]; ok {
		return "coalesce(t." + c.column(f) + ", " + zero + ")"
	}
	return "t." + c.column(f)
}

// assignments are what is set in a row that is there.
func (c *change) assignments(comes func(field) string) string {
	var all []string
	for _, f := range c.sets {
		value := comes(f)
		if f == lastSeen {
			value = "CASE WHEN t." + c.column(f) + " > " + value + " THEN t." + c.column(f) + " ELSE " + comes(f) + " END"
		}
		all = append(all, c.column(f)+" = "+value)
	}
	if c.counts != "" {
		all = append(all, c.column(c.counts)+" = "+c.had(c.counts)+" + 1")
	}
	return strings.Join(all, ", ")
}

// upsert makes the row, or changes it if the fence lets it.
func (c *change) upsert() *template {
	names, places := []string{c.column(device)}, []string{c.dialect.Parameter(1)}
	t := &template{args: []field{device}}
	set := map[field]bool{}
	for _, f := range c.sets {
		t.args, set[f] = append(t.args, f), true
		names, places = append(names, c.column(f)), append(places, c.dialect.Parameter(len(t.args)))
	}
	for _, f := range c.columns.sorted() {
		value, ok := initial[f]
		switch {
		case set[f]:
			continue
		case f == c.counts:
			value = "1"
		case !ok:
			continue
		}
		names, places = append(names, c.column(f)), append(places, value)
	}
	excluded := func(f field) string { return "excluded." + c.column(f) }
	t.text = "INSERT INTO " + c.dialect.Quote(c.table) + " AS t (" + strings.Join(names, ", ") + ") VALUES (" + strings.Join(places, ", ") +
		") ON CONFLICT (" + c.column(device) + ") DO UPDATE SET " + c.assignments(excluded) + " WHERE " + c.fence(c.had, excluded)
	return t
}

// update changes the row if it is there and the fence lets it.
func (c *change) update() *template {
	t := &template{}
	argument := func(f field) string {
		t.args = append(t.args, f)
		return c.dialect.Parameter(len(t.args))
	}
	t.text = "UPDATE " + c.dialect.Quote(c.table) + " AS t SET " + c.assignments(argument)
	t.text += " WHERE t." + c.column(device) + " = " + argument(device)
	t.text += " AND " + c.fence(c.had, argument)
	return t
}

// pair is the fence of two numbers.
func pair(first, second field) func(had, comes func(field) string) string {
	return func(had, comes func(field) string) string {
		return "(" + had(first) + ", " + had(second) + ") < (" + comes(first) + ", " + comes(second) + ")"
	}
}

// later is the fence of a time.
func later(at field) func(had, comes func(field) string) string {
	return func(had, comes func(field) string) string {
		return "(" + had(at) + " IS NULL OR " + had(at) + " < " + comes(at) + ")"
	}
}

// newResult is the fence of a result: those of two commands may have the same time.
func newResult(had, comes func(field) string) string {
	return "(" + had(lastResultAt) + " IS NULL OR " + had(lastResultAt) + " < " + comes(lastResultAt) +
		" OR " + had(lastResultAt) + " = " + comes(lastResultAt) + " AND " + had(lastResultID) + " <> " + comes(lastResultID) + ")"
}

// changes are the templates of a table; nil where messages of a kind have no column.
type changes struct {
	event, result, data *template
	// resultOnly changes a row and makes none.
	resultOnly *template
}

func (c *Config) changes(d database.Dialect) changes {
	cols := c.columns()
	prepare := func(fields []field, counts field, fence func(had, comes func(field) string) string) *change {
		sets := cols.in(fields)
		if len(sets) == 0 && cols[counts] == "" {
			return nil
		}
		ch := &change{dialect: d, table: c.Table, key: c.Key, columns: cols, sets: sets, fence: fence}
		if cols[counts] != "" {
			ch.counts = counts
		}
		return ch
	}
	made := func(ch *change) *template {
		switch {
		case ch == nil:
			return nil
		case c.Insert:
			return ch.upsert()
		default:
			return ch.update()
		}
	}
	var all changes
	fence := later(lastSeen)
	if cols[epoch] != "" {
		fence = pair(epoch, seq)
	}
	all.event = made(prepare(eventFields, "", fence))
	if ch := prepare(resultFields, results, newResult); ch != nil {
		all.result, all.resultOnly = made(ch), ch.update()
	}
	switch {
	case cols[dataEpoch] != "":
		fence = pair(dataEpoch, dataSeq)
	case cols[lastDataAt] != "":
		fence = later(lastDataAt)
	default:
		fence = later(lastSeen)
	}
	all.data = made(prepare(dataFields, dataCount, fence))
	return all
}
