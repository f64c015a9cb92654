// Package schedule is the transport whose messages are ticks of a clock, at an interval or by a
// cron expression.
//
// A topic is one [TopicConfig]. Its goroutine makes ticks from Start to Quiesce. Each pipeline
// that consumes the topic has a place for one tick. While that tick isn't settled, later ones are
// missed and counted. Start reading at rhythm.go, which computes when a tick is due, and
// consumer.go, which delivers it.
package schedule

import (
	_ "embed"

	"github.com/pentrough/pentrough/transports"
)

//go:embed schedule.md
var description string

func init() {
	transports.Register(transports.Plugin{
		Name:          "schedule",
		Summary:       "Makes messages at an interval or by a cron expression.",
		Description:   description,
		SelfContained: true,
		Config:        func() transports.Config { return &Config{} },
	})
}
