// Package ownplugins does what people do who write plugins of their own: they begin one, check it,
// build it into a host, or have a host run it as a process.
package ownplugins

import (
	"path/filepath"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/script"
)

func TestScripts(t *testing.T) {
	script.Run(t, filepath.Join("testdata", "script"), testenv.Programs(t, "-race", "./cmd/pentrough"), nil)
}
