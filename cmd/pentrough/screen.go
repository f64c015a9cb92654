package main

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// watchHead is how many rows of a screen aren't those of a table: what stands above, its head, and what stands below.
const watchHead = 5

// screen is a terminal's size; zero for what is none.
type screen struct{ rows, columns int }

func screenOf(out io.Writer) screen {
	file, ok := out.(*os.File)
	if !ok {
		return screen{}
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 || size.Col == 0 {
		return screen{}
	}
	return screen{int(size.Row), int(size.Col)}
}

// place returns the text so that it takes the place of what a terminal shows; elsewhere it is a paragraph of its own.
func (s screen) place(text string) string {
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
