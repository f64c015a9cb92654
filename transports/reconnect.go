package transports

import (
	"errors"
	"time"
)

// Reconnect is the table `reconnect` of a configuration: the backoff between attempts to connect.
// Each pause is random, between half of its interval and all of it.
type Reconnect struct {
	InitialInterval time.Duration `toml:"initial_interval" doc:"The pause after the first failed attempt. Each further pause is longer."`
	MaxInterval     time.Duration `toml:"max_interval" doc:"The longest pause."`
}

// Validate returns all problems of the table, joined.
func (r Reconnect) Validate() error {
	var problems []error
	if r.InitialInterval <= 0 {
		problems = append(problems, Invalid("reconnect.initial_interval", "%s is not more than 0s", r.InitialInterval))
	}
	switch {
	case r.MaxInterval <= 0:
		problems = append(problems, Invalid("reconnect.max_interval", "%s is not more than 0s", r.MaxInterval))
	case r.MaxInterval < r.InitialInterval:
		problems = append(problems, Invalid("reconnect.max_interval", "%s is less than initial_interval, %s", r.MaxInterval, r.InitialInterval))
	}
	return errors.Join(problems...)
}
