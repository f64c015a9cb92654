package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/internal/redact"
)

// A Problem is a mistake, or a probable mistake, in a file.
type Problem struct {
	File string
	Position
	// Key is the dotted key, such as `pipeline.commands.middleware[1]`. It is empty if the problem
	// concerns the whole file.
	Key string
	// Message says what is wrong. If possible it also says what is allowed and what was probably
	// meant.
	Message string
	// Excerpt shows the line of the file, and below it a caret at the place, without secrets. Both
	// lines begin with a line end and are indented. Excerpt is empty if Message shows a place
	// itself.
	Excerpt string
}

// String returns the problem as one line: file:line:column: key: message.
func (p Problem) String() string {
	if p.Key == "" {
		return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Column, p.Key, p.Message)
}

// Problems has all mistakes in a file, sorted by place.
type Problems []Problem

// Listing returns all problems for people, each with its excerpt of the file.
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

// Error returns all problems for a log, one line each.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// Warnings has everything in a file that is legal but probably a mistake, sorted by place.
type Warnings []Problem

// String returns all warnings, one line each.
func (w Warnings) String() string { return Problems(w).Error() }

// problem is a Problem before its place is known.
type problem struct {
	path    string
	message string
	// at is the place if it isn't the place of path.
	at *Position
	// text is the value of path, and offset is the byte in it that is wrong.
	text   string
	offset int
	// unread is true if the parser couldn't read the file.
	unread bool
}

// place returns problems with their places and excerpts, without secrets, sorted and without
// duplicates.
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
