package testenv

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// What [Memory] can read.
const (
	// Resident is the memory that a process has now.
	Resident = "VmRSS:"
	// PeakResident is the most memory that the process has had since its start, or since the last
	// [ForgetPeak].
	PeakResident = "VmHWM:"
)

// Memory reads a field of a running process's status and returns it in KiB. It works on Linux
// only.
func Memory(t testing.TB, pid int, field string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(status), field)
	if !found {
		t.Fatalf("process %d has no %s", pid, field)
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ForgetPeak sets the [PeakResident] of a process to the memory that the process has now.
func ForgetPeak(t testing.TB, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}
