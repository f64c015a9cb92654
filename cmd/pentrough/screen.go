package main

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/internal/printable"
)

// watchHead is how many rows of a screen aren't those of a table: what stands above, its head, and what stands below.
const watchHead = 5

// screen is a terminal's size; zero for what is none.
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

// place returns the text so that it takes the place of what a terminal shows; elsewhere it is a
// paragraph of its own. It is for the terminal itself: a [printable.Writer] would escape what it
// adds.
func (s screen) place(text string) string {
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
