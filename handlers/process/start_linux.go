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

// ownGroup gives a program a process group of its own, and has it die with the host.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// wide is how much a pipe holds before its writer has to wait for its reader: what Linux gives anybody who asks.
const wide = 1 << 20

// widen makes room in a pipe, if it may.
func widen(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, wide) }) // without, it only takes longer
}

// groupMemory is the resident set of all processes of a group, in bytes.
func groupMemory(group int) (int, error) {
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
			continue // it has ended
		}
		// The second field is a name in parentheses, with anything in it; the group is the fifth, the resident set the 24th (proc(5)).
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
