package testenv

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// SmallDisk mounts a file system in memory that can be filled, and returns its folder. It returns
// an error if this user may not mount.
func SmallDisk(t testing.TB, size string) (folder string, err error) {
	t.Helper()
	folder = t.TempDir()
	if err := unix.Mount("pentrough-test", folder, "tmpfs", 0, "size="+size); err != nil {
		return "", fmt.Errorf("mounting a small tmpfs: %w", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting the small tmpfs: %v", err)
		}
	})
	return folder, nil
}

// OtherDisk returns an empty folder on another disk than temporary files. It skips the test if the
// machine has no other disk.
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
