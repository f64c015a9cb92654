//go:build !linux

package process

import "errors"

// groupMemory can't be told here.
func groupMemory(int) (int, error) { return 0, errors.ErrUnsupported }
