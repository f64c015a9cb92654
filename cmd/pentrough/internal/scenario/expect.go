package scenario

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/configs"
)

// How long an expectation waits by default.
const (
	withinVirtual  = time.Second
	withinReal     = 10 * time.Second
	nothingReal    = 200 * time.Millisecond
	furtherVirtual = time.Minute
)

// expect compares one expectation with what came out.
func (w *world) expect(e expectation) error {
	within := withinVirtual
	if !w.virtual {
		within = withinReal
	}
	if e.Nothing {
		within = 0
		if !w.virtual {
			within = nothingReal
		}
	}
	within = cmp.Or(e.Within, within)
	switch {
	case e.Reply:
		return w.expectReply(e, within)
	case e.Nothing:
		return w.expectNothing(e, within)
	}
	for n := range e.Count {
		if err := w.expectOne(e, n, within); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) expectNothing(e expectation, within time.Duration) error {
	w.settle()
	if within > 0 {
		time.Sleep(within)
		w.settle()
	}
	if left := w.record.left(e.subject()); len(left) > 0 {
		return fmt.Errorf("expected nothing on %s, got\n%s", e.subject(), strings.Join(list(left), "\n"))
	}
	return nil
}

// expectOne takes what came out next and compares it. With anywhere it takes the first match among
// all that came out.
func (w *world) expectOne(e expectation, n int, within time.Duration) error {
	s := e.subject()
	find := func() (*seen, []*seen) {
		left := w.record.left(s)
		for _, one := range left {
			if !e.Anywhere || len(e.differences(one)) == 0 {
				return one, left
			}
		}
		return nil, left
	}
	one, left, came := w.await(find, within)
	what := ""
	if e.Count > 1 {
		what = fmt.Sprintf(" (%d of %d)", n+1, e.Count)
	}
	if !came {
		text := fmt.Sprintf("expected%s on %s\n  %s\ngot nothing", what, s, e.describe())
		if len(left) > 0 {
			text = fmt.Sprintf("expected%s somewhere on %s\n  %s\ngot\n%s", what, s, e.describe(), strings.Join(list(left), "\n"))
		} else if later := w.arrivesAfter(find); later > 0 {
			text += fmt.Sprintf(" within %s, but something came %s later: let time pass with wait, or set within", within, later)
		}
		return errors.New(text)
	}
	differences := e.differences(one)
	if len(differences) == 0 {
		w.record.take(s, one)
		return nil
	}
	text := fmt.Sprintf("expected%s on %s\n  %s\ngot\n  %s\nthe difference\n  %s", what, s, e.describe(), one, strings.Join(differences, "\n  "))
	if slices.ContainsFunc(left, func(o *seen) bool { return len(e.differences(o)) == 0 }) {
		text += "\na later one matches: set anywhere = true if the order isn't known"
	}
	return errors.New(text)
}

// await waits until find finds something.
func (w *world) await(find func() (*seen, []*seen), within time.Duration) (one *seen, left []*seen, ok bool) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for over := false; ; {
		w.settle()
		if one, left = find(); one != nil {
			return one, left, true
		}
		if over {
			return nil, left, false
		}
		select {
		case <-w.record.changed:
		case <-timer.C:
			over = true
		}
	}
}

// arrivesAfter returns the additional time after which find finds something, or 0 if it never
// does.
func (w *world) arrivesAfter(find func() (*seen, []*seen)) time.Duration {
	if !w.virtual {
		return 0
	}
	began := time.Now()
	if _, _, ok := w.await(find, furtherVirtual); ok {
		return time.Since(began)
	}
	return 0
}

// expectReply compares an expectation with the reply to the latest input.
func (w *world) expectReply(e expectation, within time.Duration) error {
	if w.reply == nil {
		return errors.New("there is no earlier input that could have a reply")
	}
	w.settle()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-w.reply.done:
	case <-timer.C:
		if e.Nothing {
			return nil
		}
		return fmt.Errorf("expected a reply\n  %s\ngot nothing within %s", e.describe(), within)
	}
	outcome := w.reply.outcome
	one := &seen{code: cmp.Or(outcome.Code, 200), err: outcome.Err}
	if len(outcome.Messages) > 0 {
		one.payload, one.metadata = outcome.Messages[0].Payload, outcome.Messages[0].Metadata
	}
	if e.Nothing {
		return fmt.Errorf("expected no reply, got\n  %s", one)
	}
	if differences := e.differences(one); len(differences) > 0 {
		return fmt.Errorf("expected a reply\n  %s\ngot\n  %s\nthe difference\n  %s", e.describe(), one, strings.Join(differences, "\n  "))
	}
	return nil
}

// describe returns what is expected as one line.
func (e expectation) describe() string {
	var parts []string
	if e.Code != 0 {
		parts = append(parts, fmt.Sprintf("code %d", e.Code))
	}
	if e.Payload != nil {
		want, _ := configs.DecodePayload(e.Encoding, *e.Payload)
		parts = append(parts, show(want))
	}
	if e.JSON != nil {
		parts = append(parts, jsonText(e.JSON))
	}
	if len(e.Metadata) > 0 {
		parts = append(parts, "metadata "+jsonText(e.Metadata))
	}
	if len(e.Matches) > 0 {
		parts = append(parts, "matching "+jsonText(e.Matches))
	}
	if len(e.Absent) > 0 {
		parts = append(parts, "without "+strings.Join(e.Absent, ", "))
	}
	if len(parts) == 0 {
		return "anything"
	}
	return strings.Join(parts, " ")
}

// list describes what came out, one line for each.
func list(all []*seen) []string {
	const most = 10
	var lines []string
	for i, one := range all {
		if i == most {
			lines = append(lines, fmt.Sprintf("  and %d more", len(all)-most))
			break
		}
		lines = append(lines, "  "+one.String())
	}
	return lines
}
