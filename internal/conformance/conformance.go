// Package conformance holds programs against the protocol of process plugins, docs/process-protocol.md: it starts a command again and again, plays the host, and
// tells for each [Check] whether the program kept to it. `pentrough plugin check` runs it.
//
// It shares no code with either side of the protocol, so that none of their mistakes can be its own.
package conformance

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// Subject is a program to be checked.
type Subject struct {
	// Command is the program and its arguments.
	Command []string
	// Env is what is added to the environment, as NAME=VALUE.
	Env []string
	// Config is the `config` of the host's hello; nil is an empty one.
	Config map[string]any
	// Message is a payload that the program takes.
	Message []byte
	// Echo says that it is an echo plugin, of which more can be asked.
	Echo bool
	// Patience is how long an answer may take; zero is 10 s.
	Patience time.Duration
}

// Check is one thing that is asked of a plugin.
type Check struct {
	// Name is a word for the table.
	Name string
	// About is what is looked at, in a few words.
	About string
	// Rule is the sentence of the page that it is about.
	Rule string
	// Echo says that it is asked of echo plugins alone.
	Echo bool

	run func(t *trial)
}

// Result is how a check went.
type Result struct {
	Check
	// Skipped is why the check has nothing to look at; empty: it ran.
	Skipped string
	// Failure is what was wrong; nil: nothing.
	Failure *Failure
}

// Failure is what a plugin did wrong.
type Failure struct {
	// What it did.
	What string
	// Rule is the sentence of the page that it broke.
	Rule string
	// Exchange is what was said until then: lines of the host with ">", of the plugin with "<", its standard error with "!", and what else
	// happened with "-".
	Exchange []string
	// refused says that the plugin doesn't take the subject's config.
	refused bool
}

func (f *Failure) Error() string { return f.What }

// Checks returns all checks in the order in which they run.
func Checks() []Check { return append(generalChecks(), echoChecks()...) }

// ErrConfig is what Run returns when the plugin refuses the config in the first check, as it would in
// all others.
var ErrConfig = errors.New("the other checks need a config that the plugin takes")

// Run runs each check that applies to the subject, and tells of it when it is over. Its error says why there was nothing to check.
func Run(ctx context.Context, s Subject, tell func(Result)) error {
	if len(s.Command) == 0 {
		return errors.New("there is no command")
	}
	if s.Config == nil {
		s.Config = map[string]any{}
	}
	s.Patience = cmp.Or(s.Patience, 10*time.Second)
	for i, c := range Checks() {
		if c.Echo && !s.Echo {
			continue
		}
		result := s.try(ctx, c)
		if err := ctx.Err(); err != nil {
			return err
		}
		tell(result)
		if i == 0 && result.Failure != nil && result.Failure.refused {
			return ErrConfig
		}
	}
	return nil
}

// skip ends a check that has nothing to look at.
type skip string

func (s Subject) try(ctx context.Context, c Check) (r Result) {
	t := &trial{Subject: s, ctx: ctx, rule: c.Rule}
	r.Check = c
	defer func() {
		switch v := recover().(type) {
		case nil:
		case *Failure:
			t.stop()
			v.Exchange = t.exchange()
			r.Failure = v
		case skip:
			r.Skipped = string(v)
		default:
			t.stop()
			panic(v)
		}
		t.stop()
	}()
	c.run(t)
	return r
}
