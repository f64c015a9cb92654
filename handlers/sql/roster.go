package sql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pentrough/pentrough/internal/database"
)

// Roster returns a function that reads the table of devices, or nil if there is no such table. It
// implements handlers.Roster.
func (c *Config) Roster() func(ctx context.Context) ([]map[string]any, error) {
	if !c.keepsTable() {
		return nil
	}
	return c.roster
}

func (c *Config) roster(ctx context.Context) (rows []map[string]any, err error) {
	cols := c.columns()
	if cols[online] == "" && cols[connected] == "" {
		return nil, fmt.Errorf("the table %s has no column for online or connected", c.Table)
	}
	db, err := c.open("pentrough devices")
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if path := database.Absent(db); path != "" {
		return nil, fmt.Errorf("there is no file %s", path)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	d := db.Dialect()
	fields, names := []field{device}, []string{d.Quote(c.Key)}
	for _, f := range cols.sorted() {
		fields, names = append(fields, f), append(names, d.Quote(cols[f]))
	}
	statement := database.Statement{Text: "SELECT " + strings.Join(names, ", ") + " FROM " + d.Quote(c.Table)}
	err = db.Query(ctx, statement, func(scan func(...any) error) error {
		values, to := make([]any, len(fields)), make([]any, len(fields))
		for i := range values {
			to[i] = &values[i]
		}
		if err := scan(to...); err != nil {
			return err
		}
		row := map[string]any{}
		for i, f := range fields {
			v, err := f.parse(values[i])
			if err != nil {
				return fmt.Errorf("the column %s: %w", names[i], err)
			}
			if v != nil {
				row[string(f)] = v
			}
		}
		if cols[online] == "" {
			row[string(online)] = row[string(connected)]
		}
		if row[string(online)] == nil {
			row[string(online)] = false
		}
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the table %s: %w", c.Table, err)
	}
	return rows, nil
}

// parse converts a value from the database to the type of the field. It returns nil for an empty
// value.
func (f field) parse(v any) (any, error) {
	if b, ok := v.([]byte); ok {
		v = string(b)
	}
	if v == nil || v == "" {
		return nil, nil
	}
	switch f {
	case connected, online:
		switch v := v.(type) {
		case bool:
			return v, nil
		case int64:
			return v != 0, nil
		}
	case connectedAt, changedAt, lastResultAt, lastDataAt, lastSeen:
		switch v := v.(type) {
		case time.Time:
			return v.UTC(), nil
		case string:
			// The handler writes the first layout, which Django's SQLite uses, too. Other programs
			// may write an offset.
			for _, layout := range []string{"2006-01-02 15:04:05.999999999", time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00"} {
				if t, err := time.Parse(layout, v); err == nil {
					return t.UTC(), nil
				}
			}
		}
	case generation, epoch, seq, results, dataEpoch, dataSeq, dataCount:
		switch v := v.(type) {
		case int64:
			return v, nil
		case int32:
			return int64(v), nil
		case int16:
			return int64(v), nil
		}
	default:
		return fmt.Sprint(v), nil
	}
	return nil, fmt.Errorf("%v (%T) can't be the field %s", v, v, f)
}
