//go:build linux

// Command killat kills a process at the nth call with which it writes, syncs or sends, counted
// over all of its threads: strace's when=N counts each thread's calls, and Go's threads share the
// work as it comes. It says "ready" when it counts, then what it did:
//
//	killat PID N
//
// It lets the process go when its standard input ends.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// counted are the calls that leave a trace outside of the process.
var counted = map[uint64]string{
	unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "pwrite64", unix.SYS_WRITEV: "writev", unix.SYS_PWRITEV: "pwritev",
	unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_SENDTO: "sendto", unix.SYS_SENDMSG: "sendmsg",
}

// death is what is printed of the end.
type death struct {
	// Call is the call that the process was killed at: it wasn't made.
	Call string
	// On is what it was to be made on: a file, or a connection as the kernel's table of them has
	// it.
	On   string
	Time time.Time
}

// syscallInfo is the kernel's struct ptrace_syscall_info at the entry of a call.
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	_    [2]uint64 // where in the program
	nr   uint64
	args [6]uint64
}

const atEntry = 1

func main() {
	runtime.LockOSThread() // the kernel takes a tracer's calls from one thread only
	var pid, nth int
	if len(os.Args) == 3 {
		pid, _ = strconv.Atoi(os.Args[1])
		nth, _ = strconv.Atoi(os.Args[2])
	}
	if pid <= 0 || nth <= 0 {
		fmt.Fprintln(os.Stderr, "usage: killat PID N")
		os.Exit(2)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // the kernel lets go what was traced
	}()
	if err := run(pid, nth); err != nil {
		fmt.Fprintln(os.Stderr, "killat:", err)
		os.Exit(1)
	}
}

func run(pid, nth int) error {
	starting, err := seize(pid)
	if err != nil {
		return fmt.Errorf("tracing process %d: %w", pid, err)
	}
	for ready, calls := false, 0; ; {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return nil // it is gone, with all of its threads
		case err != nil:
			return err
		}
		delete(starting, tid)
		if !ready && len(starting) == 0 {
			ready = true
			fmt.Println("ready")
		}
		if !status.Stopped() {
			continue
		}
		signal := 0
		switch stop := status.StopSignal(); {
		case stop == unix.SIGTRAP|0x80:
			if d := counts(pid, tid); d != nil {
				if calls++; calls == nth {
					d.Time = time.Now()
					if err := unix.Kill(pid, unix.SIGKILL); err != nil {
						return err
					}
					text, _ := json.Marshal(d) // strings and a time always work
					fmt.Println(string(text))
					continue
				}
			}
		case status>>16 == 0:
			signal = int(stop) // on its way to the process
		}
		_ = unix.PtraceSyscall(tid, signal) // a thread that is gone by now is waited for next
	}
}

// seize begins to trace all threads and returns those that haven't stopped yet for the first time.
func seize(pid int) (map[int]bool, error) {
	seized := map[int]bool{}
	for more := true; more; {
		more = false
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return nil, err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil || seized[tid] {
				continue
			}
			// The threads of a traced one are traced from the beginning: those that there are
			// already refuse.
			const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE
			if err := ptrace(unix.PTRACE_SEIZE, tid, 0, options); errors.Is(err, unix.EPERM) && len(seized) > 0 || errors.Is(err, unix.ESRCH) {
				continue
			} else if err != nil {
				return nil, err
			}
			if err := unix.PtraceInterrupt(tid); err == nil {
				seized[tid], more = true, true
			}
		}
	}
	return seized, nil
}

func ptrace(request, tid int, address, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), address, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// counts says which call a thread is about to make, if that is one of those that count.
func counts(pid, tid int) *death {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	call, ok := counted[info.nr]
	if errno != 0 || info.op != atEntry || !ok {
		return nil
	}
	on, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, int32(info.args[0])))
	if err != nil || on == "anon_inode:[eventfd]" {
		return nil // the runtime wakes itself up
	}
	if inode, ok := bytes.CutPrefix([]byte(on), []byte("socket:[")); ok {
		on = connection(pid, string(bytes.TrimSuffix(inode, []byte("]"))))
	}
	return &death{Call: call, On: filepath.Base(on)}
}

// connection finds a socket's local and remote ports.
func connection(pid int, inode string) string {
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue
		}
		for line := range bytes.Lines(text) {
			fields := bytes.Fields(line)
			if len(fields) > 9 && string(fields[9]) == inode {
				return fmt.Sprintf("tcp %d %d", port(fields[1]), port(fields[2]))
			}
		}
	}
	return "socket"
}

// port is that of an address as the kernel's tables have it, in hexadecimal.
func port(address []byte) uint64 {
	n, _ := strconv.ParseUint(string(address[bytes.LastIndexByte(address, ':')+1:]), 16, 16)
	return n
}
