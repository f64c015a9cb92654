package sql

import (
	"maps"
	"slices"
)

// field is one value that a device's row can have.
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

	// heardAt and heardBy are of a host's row, which has some of those above as well.
	heardAt field = "heard_at"
	heardBy field = "heard_by"

	// lastSeen is set by events and by data.
	lastSeen field = "last_seen"
)

var (
	eventFields  = []field{connected, online, reason, remoteAddr, host, generation, epoch, seq, connectedAt, changedAt, lastSeen}
	resultFields = []field{lastResultID, lastResultState, lastResultAt}
	dataFields   = []field{lastDataAt, dataEpoch, dataSeq, lastSeen}
)

// initial is what a field has in a row that a message makes which doesn't set it. Times have nothing.
var initial = map[field]string{
	connected: "false", online: "false", reason: "''", remoteAddr: "''", host: "''", generation: "0", epoch: "0", seq: "0",
	lastResultID: "''", lastResultState: "''", results: "0", dataEpoch: "0", dataSeq: "0", dataCount: "0",
}

// needs are the fields that a field doesn't work without.
var needs = map[field][]field{
	connected: {epoch, seq}, online: {connected, host, generation, epoch, seq}, reason: {epoch, seq}, remoteAddr: {epoch, seq}, host: {epoch, seq},
	generation: {epoch, seq}, connectedAt: {epoch, seq}, changedAt: {epoch, seq}, epoch: {seq}, seq: {epoch},
	lastResultID: {lastResultAt}, lastResultState: {lastResultID, lastResultAt}, lastResultAt: {lastResultID}, results: {lastResultID, lastResultAt},
	dataEpoch: {dataSeq}, dataSeq: {dataEpoch}, dataCount: {dataEpoch, dataSeq},
}

// values are a message's, by field.
type values map[field]any

// columns are the table's, by field.
type columns map[field]string

// known returns every field but the key.
func known() []field {
	return slices.Concat(eventFields[:len(eventFields)-1], resultFields, []field{results}, dataFields, []field{dataCount})
}

// readyMade are the columns of the table that the handler makes itself.
func readyMade() columns {
	c := columns{}
	for _, f := range known() {
		c[f] = string(f)
	}
	return c
}

// in keeps the fields that have a column.
func (c columns) in(all []field) []field {
	var here []field
	for _, f := range all {
		if _, ok := c[f]; ok {
			here = append(here, f)
		}
	}
	return here
}

func (c columns) sorted() []field { return slices.Sorted(maps.Keys(c)) }
