package sql

import (
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/database"
)

// template is a statement with the fields that are its arguments.
type template struct {
	text string
	args []field
}

// bind returns the statement with the values of a message.
func (t *template) bind(v values) database.Statement {
	s := database.Statement{Text: t.text, Args: make([]any, len(t.args))}
	for i, f := range t.args {
		s.Args[i] = v[f]
	}
	return s
}

// change builds the statement with which messages of one kind change a device's row. The fence in
// the statement makes it safe to execute messages repeatedly, late and in any order: only a newer
// message changes the row.
type change struct {
	dialect    database.Dialect
	table, key string
	columns    columns
	// sets are the fields that the statement sets. counts is the field that it raises by one, or
	// "".
	sets   []field
	counts field
	fence  fence
}

// fence is the condition that a message is newer than the row.
type fence struct {
	// newer returns the condition in SQL. oldValue and newValue return the expressions for the old
	// and the new value of a field.
	newer func(oldValue, newValue func(field) string) string
	// compares are the fields in the condition. In a newer message, the first is never smaller
	// than in the row.
	compares []field
}

func (c *change) column(f field) string {
	if f == device {
		return c.dialect.Quote(c.key)
	}
	return c.dialect.Quote(c.columns[f])
}

// oldValue returns the expression for a field's value in the row. If the column may be null, null
// counts as the initial value.
func (c *change) oldValue(f field) string {
	if zero, ok := initial[f]; ok {
		return "coalesce(t." + c.column(f) + ", " + zero + ")"
	}
	return "t." + c.column(f)
}

// assignments returns the assignments that change a row. last_seen never goes back.
func (c *change) assignments(newValue func(field) string) string {
	var all []string
	for _, f := range c.sets {
		value := newValue(f)
		if f == lastSeen {
			value = "CASE WHEN t." + c.column(f) + " > " + value + " THEN t." + c.column(f) + " ELSE " + newValue(f) + " END"
		}
		all = append(all, c.column(f)+" = "+value)
	}
	if c.counts != "" {
		all = append(all, c.column(c.counts)+" = "+c.oldValue(c.counts)+" + 1")
	}
	return strings.Join(all, ", ")
}

// upsert returns a statement that makes the row, or changes it if the fence's condition is true.
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
		") ON CONFLICT (" + c.column(device) + ") DO UPDATE SET " + c.assignments(excluded) + " WHERE " + c.fence.newer(c.oldValue, excluded)
	return t
}

// onDuplicate returns the assignments of MySQL's ON DUPLICATE KEY UPDATE. It has no WHERE, so each
// assignment contains the fence's condition. MySQL assigns columns from left to right, and a
// condition sees the columns that were assigned before it. So the fields in the condition are
// assigned last, and the first of them at the very end. That last assignment can only raise its
// field, so it needs no condition.
func (c *change) onDuplicate(t *template) string {
	argument := func(f field) string {
		t.args = append(t.args, f)
		return c.dialect.Parameter(len(t.args))
	}
	oldValue := func(f field) string { return strings.Replace(c.oldValue(f), "t.", "", 1) }
	ifNewer := func(f field, value func() string) string {
		return c.column(f) + " = IF(" + c.fence.newer(oldValue, argument) + ", " + value() + ", " + c.column(f) + ")"
	}
	raised := func(f field) string {
		return "IF(" + c.column(f) + " > " + argument(f) + ", " + c.column(f) + ", " + argument(f) + ")"
	}
	var all []string
	for _, f := range c.sets {
		if slices.Contains(c.fence.compares, f) {
			continue
		}
		all = append(all, ifNewer(f, func() string {
			if f == lastSeen {
				return raised(f)
			}
			return argument(f)
		}))
	}
	if c.counts != "" {
		all = append(all, ifNewer(c.counts, func() string { return oldValue(c.counts) + " + 1" }))
	}
	for i := len(c.fence.compares) - 1; i > 0; i-- {
		f := c.fence.compares[i]
		all = append(all, ifNewer(f, func() string { return argument(f) }))
	}
	first := c.fence.compares[0]
	return strings.Join(append(all, c.column(first)+" = "+raised(first)), ", ")
}

// update returns a statement that changes the row if it exists and the fence's condition is true.
func (c *change) update() *template {
	t := &template{}
	argument := func(f field) string {
		t.args = append(t.args, f)
		return c.dialect.Parameter(len(t.args))
	}
	t.text = "UPDATE " + c.dialect.Quote(c.table) + " AS t SET " + c.assignments(argument)
	t.text += " WHERE t." + c.column(device) + " = " + argument(device)
	t.text += " AND " + c.fence.newer(c.oldValue, argument)
	return t
}

// pairFence returns the fence that compares two numbers, the first one first.
func pairFence(first, second field) fence {
	return fence{func(oldValue, newValue func(field) string) string {
		return "(" + oldValue(first) + ", " + oldValue(second) + ") < (" + newValue(first) + ", " + newValue(second) + ")"
	}, []field{first, second}}
}

// greaterFence returns the fence that compares one number.
func greaterFence(f field) fence {
	return fence{func(oldValue, newValue func(field) string) string { return oldValue(f) + " < " + newValue(f) }, []field{f}}
}

// laterFence returns the fence that compares a time.
func laterFence(at field) fence {
	return fence{func(oldValue, newValue func(field) string) string {
		return "(" + oldValue(at) + " IS NULL OR " + oldValue(at) + " < " + newValue(at) + ")"
	}, []field{at}}
}

// newResult is the fence of a result. Results of two commands may have the same time; then a
// result with another id counts as newer.
var newResult = fence{func(oldValue, newValue func(field) string) string {
	return "(" + oldValue(lastResultAt) + " IS NULL OR " + oldValue(lastResultAt) + " < " + newValue(lastResultAt) +
		" OR " + oldValue(lastResultAt) + " = " + newValue(lastResultAt) + " AND " + oldValue(lastResultID) + " <> " + newValue(lastResultID) + ")"
}, []field{lastResultAt, lastResultID}}

// changes are the templates for a table of devices. A template is nil if the table has no column
// for its kind of message.
type changes struct {
	event, result, data *template
	// resultOnly is for a result without an epoch. It changes a row and never makes one.
	resultOnly *template
}

func (c *Config) changes(d database.Dialect) changes {
	cols := c.columns()
	prepare := func(fields []field, counts field, by fence) *change {
		sets := cols.existing(fields)
		if len(sets) == 0 && cols[counts] == "" {
			return nil
		}
		ch := &change{dialect: d, table: c.Table, key: c.Key, columns: cols, sets: sets, fence: by}
		if cols[counts] != "" {
			ch.counts = counts
		}
		return ch
	}
	build := func(ch *change) *template {
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
	by := laterFence(lastSeen)
	if cols[epoch] != "" {
		by = pairFence(epoch, seq)
	}
	all.event = build(prepare(eventFields, "", by))
	if ch := prepare(resultFields, results, newResult); ch != nil {
		all.result, all.resultOnly = build(ch), ch.update()
	}
	switch {
	case cols[dataEpoch] != "":
		by = pairFence(dataEpoch, dataSeq)
	case cols[lastDataAt] != "":
		by = laterFence(lastDataAt)
	default:
		by = laterFence(lastSeen)
	}
	all.data = build(prepare(dataFields, dataCount, by))
	return all
}
