package sql

import (
	"maps"
	"slices"
)

// field names a value in a device's row.
type field string

// The fields, by the messages that set them.
const (
	device field = "device"

	connected   field = "connected"
	online      field = "online"
	reason      field = "reason"
	remoteAddr  field = "remote_addr"
	host        field = "host"
	generation  field = "generation"
	epoch       field = "epoch"
	seq         field = "seq"
	connectedAt field = "connected_at"
	changedAt   field = "changed_at"

	lastResultID    field = "last_result_id"
	lastResultState field = "last_result_state"
	lastResultAt    field = "last_result_at"
	results         field = "results"

	lastDataAt field = "last_data_at"
	dataEpoch  field = "data_epoch"
	dataSeq    field = "data_seq"
	dataCount  field = "data"

	// heardAt and heardBy are in a host's row, together with some of the fields above.
	heardAt field = "heard_at"
	heardBy field = "heard_by"

	// Events and data set lastSeen.
	lastSeen field = "last_seen"
)

var (
	eventFields  = []field{connected, online, reason, remoteAddr, host, generation, epoch, seq, connectedAt, changedAt, lastSeen}
	resultFields = []field{lastResultID, lastResultState, lastResultAt}
	dataFields   = []field{lastDataAt, dataEpoch, dataSeq, lastSeen}
)

// initial has the values of fields in a new row, if the message that makes the row doesn't set
// them. The times aren't in this map: they are null in a new row.
var initial = map[field]string{
	connected: "false", online: "false", reason: "''", remoteAddr: "''", host: "''", generation: "0", epoch: "0", seq: "0",
	lastResultID: "''", lastResultState: "''", results: "0", dataEpoch: "0", dataSeq: "0", dataCount: "0",
}

// needs has, for each field, the other fields that must have columns if this field has one.
var needs = map[field][]field{
	connected: {epoch, seq}, online: {connected, host, generation, epoch, seq}, reason: {epoch, seq}, remoteAddr: {epoch, seq}, host: {epoch, seq},
	generation: {epoch, seq}, connectedAt: {epoch, seq}, changedAt: {epoch, seq}, epoch: {seq}, seq: {epoch},
	lastResultID: {lastResultAt}, lastResultState: {lastResultID, lastResultAt}, lastResultAt: {lastResultID}, results: {lastResultID, lastResultAt},
	dataEpoch: {dataSeq}, dataSeq: {dataEpoch}, dataCount: {dataEpoch, dataSeq},
}

// values are the values in a message, by field.
type values map[field]any

// columns are the names of a table's columns, by field.
type columns map[field]string

// deviceFields returns every field of a device's row but the key.
func deviceFields() []field {
	return slices.Concat(eventFields[:len(eventFields)-1], resultFields, []field{results}, dataFields, []field{dataCount})
}

// defaultColumns returns the columns of the table that the handler makes itself.
func defaultColumns() columns {
	c := columns{}
	for _, f := range deviceFields() {
		c[f] = string(f)
	}
	return c
}

// existing returns the fields in all that have a column.
func (c columns) existing(all []field) []field {
	var found []field
	for _, f := range all {
		if _, ok := c[f]; ok {
			found = append(found, f)
		}
	}
	return found
}

func (c columns) sorted() []field { return slices.Sorted(maps.Keys(c)) }
