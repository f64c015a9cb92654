package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/admin"
	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/internal/redact"
)

// chooseTable sets fetch to read the table of the configuration.
func (v *devicesVerb) chooseTable(secrets *redact.Set) error {
	if v.sort == byWaiting || v.sort == byHeard {
		return advise(fmt.Errorf("--sort %s needs a running host", v.sort), "sort a table by the time at which devices were last seen: --sort %s", bySeen)
	}
	c, _, err := load(v.file, secrets)
	if err != nil {
		return err
	}
	var tables []handlers.Roster
	var names, pipelines []string
	for _, p := range c.Router.Pipelines {
		names = append(names, p.Name)
		table, ok := p.Handler.Config.(handlers.Roster)
		if !ok || table.Roster() == nil || v.pipeline != "" && v.pipeline != p.Name {
			continue
		}
		if slices.ContainsFunc(tables, func(other handlers.Roster) bool { return reflect.DeepEqual(other, table) }) {
			continue
		}
		tables, pipelines = append(tables, table), append(pipelines, p.Name)
	}
	switch {
	case v.pipeline != "" && !slices.Contains(names, v.pipeline):
		return advise(fmt.Errorf("%s has no pipeline %q", v.file, v.pipeline), "name one of %s", strings.Join(names, ", "))
	case len(tables) == 0 && v.pipeline != "":
		return advise(fmt.Errorf("the pipeline %s keeps no table of devices", v.pipeline), "name one whose handler is sql")
	case len(tables) == 0:
		return advise(fmt.Errorf("%s keeps no table of devices", v.file), "the handler sql keeps one; without -c the devices of a running host are shown")
	case len(tables) > 1:
		return advise(fmt.Errorf("%s keeps several tables of devices", v.file), "choose one with --pipeline: %s", strings.Join(pipelines, ", "))
	}
	v.fetch = func(ctx context.Context) (*fleet, error) { return v.readTable(ctx, tables[0]) }
	return nil
}

func (v *devicesVerb) readTable(ctx context.Context, table handlers.Roster) (*fleet, error) {
	ctx, cancel := context.WithTimeout(ctx, devicesTimeout)
	defer cancel()
	rows, err := table.Roster()(ctx)
	if err != nil {
		return nil, advise(err, "pentrough run --dry-run -c %s says what is missing", v.file)
	}
	all := &fleet{source: v.file, time: time.Now(), fromTable: true}
	for _, row := range rows {
		d := listed{row: row, Device: admin.Device{RemoteAddr: textField(row, "remote_addr")}}
		d.Device.Device, d.Online = textField(row, "device"), row["online"] == true
		if at, ok := row["connected_at"].(time.Time); ok {
			d.ConnectedAt = &at
		}
		all.devices = append(all.devices, d)
	}
	return all, nil
}

func textField(row map[string]any, key string) string {
	t, _ := row[key].(string)
	return t
}

func timeField(row map[string]any, key string) time.Time {
	t, _ := row[key].(time.Time)
	return t
}

// rowCells returns the cells of a table row, in the order of tableHeadings.
func (d *listed) rowCells() []string {
	state := "online"
	if !d.Online {
		if state = "offline"; textField(d.row, "reason") != "" {
			state += " (" + printable.Text(textField(d.row, "reason")) + ")"
		}
	}
	return []string{
		printable.Text(d.Device.Device), state, timeOrDash(stateSince(*d)), orDash(printable.Text(textField(d.row, "host"))), orDash(printable.Text(d.RemoteAddr)),
		timeOrDash(timeField(d.row, "last_seen")), orDash(printable.Text(textField(d.row, "last_result_state"))),
	}
}

var tableHeadings = []string{"DEVICE", "STATE", "SINCE", "HOST", "ADDRESS", "SEEN", "RESULT"}

func timeOrDash(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return localTime(t)
}
