package testenv

import (
	"os"
	"syscall"
	"testing"
)

// OtherDisk returns an empty folder that is on another disk than temporary files are. It skips the
// test where the machine has none.
func OtherDisk(t testing.TB) string {
	t.Helper()
	const shared = "/dev/shm"
	var here, there syscall.Stat_t
	if syscall.Stat(os.TempDir(), &here) != nil || syscall.Stat(shared, &there) != nil || here.Dev == there.Dev {
		t.Skip("this machine has one disk")
	}
	folder, err := os.MkdirTemp(shared, "pentrough")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	return folder
}
