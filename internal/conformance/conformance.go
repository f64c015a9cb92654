// Package conformance checks programs against the protocol of process plugins,
// docs/process-protocol.md. It starts a command again and again, plays the host, and reports for
// each [Check] whether the program follows the protocol. `pentrough plugin check` runs it.
//
// It shares no code with either side of the protocol, so it can't share their mistakes.
package conformance

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// Subject is a program to check.
type Subject struct {
	// Command is the program and its arguments.
	Command []string
	// Env is added to the environment, as NAME=VALUE.
	Env []string
	// Config is the `config` of the host's hello. Nil stands for an empty one.
	Config map[string]any
	// Message is a payload that the program accepts.
	Message []byte
	// Echo reports that it is an echo plugin, for which there are more checks.
	Echo bool
	// Patience is how long the program may take for an answer. Zero stands for 10 s.
	Patience time.Duration
}

// Check is one requirement for a plugin.
type Check struct {
	// Name is one word that names the check in a table.
	Name string
	// About describes the check in a few words.
	About string
	// Rule is the sentence of the page that the check is about.
	Rule string
	// Echo is set if the check is only for echo plugins.
	Echo bool

	run func(t *trial)
}

// Result is the outcome of a check.
type Result struct {
	Check
	// Skipped is the reason why the check doesn't apply. It is empty if the check ran.
	Skipped string
	// Failure is the mistake that the check found, or nil.
	Failure *Failure
}

// Failure is a mistake of a plugin.
type Failure struct {
	// What describes the mistake.
	What string
	// Rule is the sentence of the page that the plugin violated.
	Rule string
	// Exchange has the lines that were exchanged until then. Lines of the host begin with ">",
	// lines of the plugin with "<", its standard error with "!", and other events with "-".
	Exchange []string
	// refused is set if the plugin refused the subject's config.
	refused bool
}

func (f *Failure) Error() string { return f.What }

// Checks returns all checks in the order in which they run.
func Checks() []Check { return append(generalChecks(), echoChecks()...) }

// ErrConfig is the error of Run if the plugin refuses the config in the first check. It would
// refuse it in all others, too.
var ErrConfig = errors.New("the other checks need a config that the plugin accepts")

// Run runs each check that applies to the subject, and calls tell after each. It returns an error
// if there was nothing to check.
func Run(ctx context.Context, s Subject, tell func(Result)) error {
	if len(s.Command) == 0 {
		return errors.New("the command is empty")
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

// skip ends a check that doesn't apply.
type skip string

func (s Subject) try(ctx context.Context, c Check) (r Result) {
	t := &trial{Subject: s, ctx: ctx, rule: c.Rule}
	r.Check = c
	defer func() {
		switch v := recover().(type) {
		case nil:
		case *Failure:
			t.killProcess()
			v.Exchange = t.exchange()
			r.Failure = v
		case skip:
			r.Skipped = string(v)
		default:
			t.killProcess()
			panic(v)
		}
		t.killProcess()
	}()
	c.run(t)
	return r
}
