// Package schedule is the transport whose messages are ticks of a clock: at an interval, or when a cron expression says so.
//
// A topic is one [TopicConfig], with a goroutine that makes its ticks from Start to Quiesce. Every pipeline that consumes the topic has a
// place for one tick, never for more: what comes due while that one isn't settled is missed, and counted. Start reading at rhythm.go, which
// says when a tick is due, and consumer.go, which says what becomes of it.
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
