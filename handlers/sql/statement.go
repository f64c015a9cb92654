package sql

import (
	"slices"
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
	fence  fence
}

// fence tells newer messages from older ones.
type fence struct {
	// newer says by its arguments, which are old and new values, that the message is newer than the row.
	newer func(had, comes func(field) string) string
	// looks are the fields that it looks at. The first is never less in a newer message.
	looks []field
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
	if c.dialect.OnDuplicateKey {
		t.text = "INSERT INTO " + c.dialect.Quote(c.table) + " (" + strings.Join(names, ", ") + ") VALUES (" + strings.Join(places, ", ") + ") ON DUPLICATE KEY UPDATE " + c.onDuplicate(t)
		return t
	}
	excluded := func(f field) string { return "excluded." + c.column(f) }
	t.text = "INSERT INTO " + c.dialect.Quote(c.table) + " AS t (" + strings.Join(names, ", ") + ") VALUES (" + strings.Join(places, ", ") +
		") ON CONFLICT (" + c.column(device) + ") DO UPDATE SET " + c.assignments(excluded) + " WHERE " + c.fence.newer(c.had, excluded)
	return t
}

// onDuplicate are the assignments of an INSERT without WHERE: each asks the fence. What the fence looks at comes last, and of that the first at the very end: as
// columns change from left to right, it is only ever raised, whether the fence lets the message through or not.
func (c *change) onDuplicate(t *template) string {
	argument := func(f field) string {
		t.args = append(t.args, f)
		return c.dialect.Parameter(len(t.args))
	}
	had := func(f field) string { return strings.Replace(c.had(f), "t.", "", 1) }
	let := func(f field, value func() string) string {
		return c.column(f) + " = IF(" + c.fence.newer(had, argument) + ", " + value() + ", " + c.column(f) + ")"
	}
	raised := func(f field) string {
		return "IF(" + c.column(f) + " > " + argument(f) + ", " + c.column(f) + ", " + argument(f) + ")"
	}
	var all []string
	for _, f := range c.sets {
		if slices.Contains(c.fence.looks, f) {
			continue
		}
		all = append(all, let(f, func() string {
			if f == lastSeen {
				return raised(f)
			}
			return argument(f)
		}))
	}
	if c.counts != "" {
		all = append(all, let(c.counts, func() string { return had(c.counts) + " + 1" }))
	}
	for i := len(c.fence.looks) - 1; i > 0; i-- {
		f := c.fence.looks[i]
		all = append(all, let(f, func() string { return argument(f) }))
	}
	first := c.fence.looks[0]
	return strings.Join(append(all, c.column(first)+" = "+raised(first)), ", ")
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
	t.text += " AND " + c.fence.newer(c.had, argument)
	return t
}

// pair is the fence of two numbers.
func pair(first, second field) fence {
	return fence{func(had, comes func(field) string) string {
		return "(" + had(first) + ", " + had(second) + ") < (" + comes(first) + ", " + comes(second) + ")"
	}, []field{first, second}}
}

// greater is the fence of a number.
func greater(f field) fence {
	return fence{func(had, comes func(field) string) string { return had(f) + " < " + comes(f) }, []field{f}}
}

// later is the fence of a time.
func later(at field) fence {
	return fence{func(had, comes func(field) string) string {
		return "(" + had(at) + " IS NULL OR " + had(at) + " < " + comes(at) + ")"
	}, []field{at}}
}

// newResult is the fence of a result: those of two commands may have the same time.
var newResult = fence{func(had, comes func(field) string) string {
	return "(" + had(lastResultAt) + " IS NULL OR " + had(lastResultAt) + " < " + comes(lastResultAt) +
		" OR " + had(lastResultAt) + " = " + comes(lastResultAt) + " AND " + had(lastResultID) + " <> " + comes(lastResultID) + ")"
}, []field{lastResultAt, lastResultID}}

// changes are the templates of a table; nil where messages of a kind have no column.
type changes struct {
	event, result, data *template
	// resultOnly changes a row and makes none.
	resultOnly *template
}

func (c *Config) changes(d database.Dialect) changes {
	cols := c.columns()
	prepare := func(fields []field, counts field, by fence) *change {
		sets := cols.in(fields)
		if len(sets) == 0 && cols[counts] == "" {
			return nil
		}
		ch := &change{dialect: d, table: c.Table, key: c.Key, columns: cols, sets: sets, fence: by}
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
	by := later(lastSeen)
	if cols[epoch] != "" {
		by = pair(epoch, seq)
	}
	all.event = made(prepare(eventFields, "", by))
	if ch := prepare(resultFields, results, newResult); ch != nil {
		all.result, all.resultOnly = made(ch), ch.update()
	}
	switch {
	case cols[dataEpoch] != "":
		by = pair(dataEpoch, dataSeq)
	case cols[lastDataAt] != "":
		by = later(lastDataAt)
	default:
		by = later(lastSeen)
	}
	all.data = made(prepare(dataFields, dataCount, by))
	return all
}
