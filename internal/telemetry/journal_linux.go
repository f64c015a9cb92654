package telemetry

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// isJournal reports whether systemd has connected out to its journal. The variable JOURNAL_STREAM
// has the device and the inode of that stream (systemd.exec(5)).
func isJournal(out io.Writer) bool {
	stream := os.Getenv("JOURNAL_STREAM")
	for {
		wrapped, ok := out.(interface{ Unwrap() io.Writer })
		if !ok {
			break
		}
		out = wrapped.Unwrap()
	}
	file, ok := out.(*os.File)
	if !ok || stream == "" {
		return false
	}
	info, err := file.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}
