package main

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/internal/printable"
)

// watchHead is the number of lines that a screen needs in addition to the rows of the table:
// title, blank line, heading, summary and cursor.
const watchHead = 5

// screen is the size of a terminal. It is zero if the output isn't a terminal.
type screen struct{ rows, columns int }

func screenOf(out io.Writer) screen {
	file, ok := printable.Below(out).(*os.File)
	if !ok {
		return screen{}
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 || size.Col == 0 {
		return screen{}
	}
	return screen{int(size.Row), int(size.Col)}
}

// replaceScreen returns text with control codes so that it replaces what the terminal shows. If
// the output isn't a terminal, it returns the text as a paragraph. The result must not pass
// through a [printable.Writer], which would escape the control codes.
func (s screen) replaceScreen(text string) string {
	text = printable.Lines(text)
	if s.rows == 0 {
		return text + "\n"
	}
	const home, restOfLine, restOfScreen = "\x1b[H", "\x1b[K", "\x1b[J"
	var b strings.Builder
	b.WriteString(home)
	for line := range strings.Lines(text) {
		cut := []rune(strings.TrimSuffix(line, "\n"))
		b.WriteString(string(cut[:min(len(cut), s.columns)]) + restOfLine + "\r\n")
	}
	b.WriteString(restOfScreen)
	return b.String()
}
