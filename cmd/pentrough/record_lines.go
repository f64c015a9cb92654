package main

import (
	"context"
	"iter"
	"time"

	"github.com/pentrough/pentrough/internal/admin"
	"github.com/pentrough/pentrough/internal/recording"
	"github.com/pentrough/pentrough/router"
)

// recordLines records a device of a host and returns the lines of the recording.
func recordLines(ctx context.Context, host *router.Host, name string, ask admin.RecordRequest) (iter.Seq[recording.Line], error) {
	entries, t, err := host.Record(ctx, ask.Transport, ask.Device, ask.Next)
	if err != nil {
		return nil, err
	}
	about := recording.Connection{Host: name, Transport: t.Name, Protocol: t.Protocol, Framing: t.Framing}
	return func(yield func(recording.Line) bool) {
		for e, err := range entries.Entries() {
			l := recording.LineOf(e, about)
			if err != nil {
				l = recording.Line{Time: time.Now().UTC(), Error: err.Error()}
			}
			if !yield(l) {
				return
			}
		}
	}, nil
}
