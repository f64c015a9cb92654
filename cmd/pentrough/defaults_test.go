package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ownNetwork says that this process has a network of its own.
const ownNetwork = "PENTROUGH_TEST_OWN_NETWORK"

// noNetwork is the exit code of a process that may not use its network.
const noNetwork = 77

// TestDefaults runs the scripts of testdata/defaults, whose hosts listen at the default ports.
// Other programs of the machine may have these, so the scripts run in a process with a network
// of its own, where the kernel lets this user have one.
func TestDefaults(t *testing.T) {
	if os.Getenv(ownNetwork) != "" {
		if err := raiseLoopback(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(noNetwork)
		}
		runScripts(t, filepath.Join("testdata", "defaults"))
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDefaults$", "-test.v")
	cmd.Env = append(os.Environ(), ownNetwork+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:   syscall.SIGKILL,
		Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch exit, ran := errors.AsType[*exec.ExitError](err); {
	case err == nil:
	case ran && exit.ExitCode() != noNetwork:
		t.Errorf("%v\n%s", err, out)
	default:
		t.Logf("no network of its own, so the default ports of this machine have to be free: %v\n%s", err, out)
		runScripts(t, filepath.Join("testdata", "defaults"))
	}
}

// raiseLoopback has 127.0.0.1 work in a new network.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return os.NewSyscallError("SIOCGIFFLAGS", err)
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	return os.NewSyscallError("SIOCSIFFLAGS", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
}
