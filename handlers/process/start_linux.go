package process

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// setOwnGroup gives the process a process group of its own, and makes it end with the host.
func setOwnGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// pipeSize is the capacity that each pipe gets, in bytes. It is the most that Linux gives a user
// without privileges, unless the machine has another limit.
const pipeSize = 1 << 20

// widenPipe sets the capacity of a pipe to pipeSize, if the system allows it.
func widenPipe(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	// with a smaller pipe, transfers only take longer
	_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
}

// readGroupMemory returns the resident set of all processes of a group together, in bytes.
func readGroupMemory(group int) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	pages := 0
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // the process has ended
		}
		// The second field is a name in parentheses, which may contain any character. The fifth
		// field is the group, and the 24th the resident set in pages (proc(5)).
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		const groupField, residentField = 5 - 3, 24 - 3
		if len(fields) <= residentField || string(fields[groupField]) != fmt.Sprint(group) {
			continue
		}
		if n, err := strconv.Atoi(string(fields[residentField])); err == nil {
			pages += n
		}
	}
	return pages * os.Getpagesize(), nil
}
