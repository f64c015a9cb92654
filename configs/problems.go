package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/redact"
)

// A Problem is one thing that is wrong, or perhaps not meant, in a file.
type Problem struct {
	File string
	Position
	// Key is the dotted key, such as `pipeline.commands.middleware[1]`; empty if the whole file is meant.
	Key string
	// Message says what is wrong; then what is allowed and what was probably meant, where that can be said.
	Message string
	// Excerpt is the line of the file and below it a sign at the place, each after a line end and
	// indented, without secrets. It is empty if Message shows a place itself.
	Excerpt string
}

// String is the problem as one line: file:line:column: key: message.
func (p Problem) String() string {
	if p.Key == "" {
		return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Column, p.Key, p.Message)
}

// Problems is everything that is wrong with a file, in the order of the places.
type Problems []Problem

// Listing lists all problems as people read them, each with its excerpt of the file.
func (p Problems) Listing() string {
	var b strings.Builder
	for i := range p {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p[i].String() + p[i].Excerpt)
	}
	return b.String()
}

// Error lists all problems, a line each, as for a log.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// Warnings is everything in a file that is legal but perhaps not meant, in the order of the places.
type Warnings []Problem

// String lists all warnings, a line each.
func (w Warnings) String() string { return Problems(w).Error() }

// problem is a problem whose place isn't known yet.
type problem struct {
	path    string
	message string
	// at is the place, if that isn't the one of path.
	at *Position
	// text is path's value if offset says at which of its bytes it is wrong.
	text   string
	offset int
	// unread says that the parser found it, so that the file wasn't read.
	unread bool
}

// place finds where problems are, shows them without secrets, sorts them and leaves out repetitions.
func place(file string, at *positions, secrets *redact.Set, problems []problem) []Problem {
	if len(problems) == 0 {
		return nil
	}
	lines := newExcerpts(at, secrets, problems[0].unread)
	placed := make([]Problem, len(problems))
	for i, p := range problems {
		placed[i] = Problem{File: file, Key: p.path, Message: secrets.Text(p.message)}
		if p.at != nil {
			placed[i].Position = *p.at
		} else if inside, ok := at.inside(p.path, p.text, p.offset); ok {
			placed[i].Position = inside
		} else {
			placed[i].Position = at.find(p.path)
		}
		if !strings.Contains(p.message, "\n") {
			placed[i].Excerpt = lines.at(placed[i].Position)
		}
	}
	slices.SortStableFunc(placed, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Key, b.Key))
	})
	seen := map[Problem]bool{}
	return slices.DeleteFunc(placed, func(p Problem) bool {
		again := seen[p]
		seen[p] = true
		return again
	})
}
