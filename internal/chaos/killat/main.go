//go:build linux

// Command killat kills a process at the nth call with which it writes, syncs or sends, counted
// over all of its threads. (With when=N, strace counts the calls of each thread alone, and a Go
// program can make a call on any of its threads.) It prints "ready" when it begins to count, and
// then what it did:
//
//	killat PID N
//
// When its standard input ends, it stops tracing and the process continues.
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

// counted has the calls with an effect outside of the process.
var counted = map[uint64]string{
	unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "pwrite64", unix.SYS_WRITEV: "writev", unix.SYS_PWRITEV: "pwritev",
	unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_SENDTO: "sendto", unix.SYS_SENDMSG: "sendmsg",
}

// death is what the program prints about the end of the process.
type death struct {
	// Call is the call at whose beginning the process was killed. The call wasn't made.
	Call string
	// On is the object of the call: a file, or a connection with its two ports.
	On   string
	Time time.Time
}

// syscallInfo is the kernel's struct ptrace_syscall_info at the entry of a call.
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	_    [2]uint64 // the place in the program
	nr   uint64
	args [6]uint64
}

const atEntry = 1

func main() {
	runtime.LockOSThread() // the kernel accepts a tracer's calls from one thread only
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
		os.Exit(0) // the kernel then stops the tracing, and the process continues
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
			return nil // the process has ended, with all of its threads
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
					text, _ := json.Marshal(d) // strings and a time can always be encoded
					fmt.Println(string(text))
					continue
				}
			}
		case status>>16 == 0:
			signal = int(stop) // the tracer passes it on to the process
		}
		_ = unix.PtraceSyscall(tid, signal) // if the thread has ended, the next Wait4 reports it
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
			// The kernel traces new threads of a traced thread by itself. It refuses a second
			// request for them.
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

// counts returns the call that a thread is about to make, or nil if the call isn't counted.
func counts(pid, tid int) *death {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	call, ok := counted[info.nr]
	if errno != 0 || info.op != atEntry || !ok {
		return nil
	}
	on, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, int32(info.args[0])))
	if err != nil || on == "anon_inode:[eventfd]" {
		return nil // the Go runtime wakes one of its own threads
	}
	if inode, ok := bytes.CutPrefix([]byte(on), []byte("socket:[")); ok {
		on = connection(pid, string(bytes.TrimSuffix(inode, []byte("]"))))
	}
	return &death{Call: call, On: filepath.Base(on)}
}

// connection returns a socket's local and remote ports as text.
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

// port returns the port of an address in the kernel's tables, which have it in hexadecimal.
func port(address []byte) uint64 {
	n, _ := strconv.ParseUint(string(address[bytes.LastIndexByte(address, ':')+1:]), 16, 16)
	return n
}
