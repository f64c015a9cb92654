// Package hostbuild builds a host with more plugins than this one has. It compiles the host's own
// source together with modules of other authors. Start with [Find], which locates the source, and
// [Source.Build].
//
// It doesn't change the source. go build -overlay adds a file with the imports of the plugins.
// -modfile replaces go.mod by a copy that also requires the plugins. So a checkout stays clean,
// and the read-only module cache can be built from.
package hostbuild

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

// Module is the host's module.
const Module = "github.com/pentrough/pentrough"

// Source is where the host's own source is.
type Source struct {
	// Dir is its folder.
	Dir string
	// Version is its version; empty for a checkout.
	Version string
}

// ErrNoSource is the kind of Find's error when this program doesn't know what it was built from.
var ErrNoSource = errors.New("this program doesn't know where its source is")

// Find returns the source in a folder or of a version. With an empty want, it returns the source
// that this program was built from.
func Find(ctx context.Context, want string) (Source, error) {
	if want == "" {
		return ownSource(ctx)
	}
	if semver.IsValid(want) || want == "latest" {
		return downloadSource(ctx, want)
	}
	return checkoutSource(want)
}

// ownSource returns the source that this program was built from.
func ownSource(ctx context.Context) (Source, error) {
	_, file, _, _ := runtime.Caller(0)
	if _, after, cached := strings.Cut(filepath.ToSlash(file), Module+"@"); cached {
		version, _, _ := strings.Cut(after, "/")
		return downloadSource(ctx, version)
	}
	if filepath.IsAbs(file) { // -trimpath leaves the folder out
		if s, err := checkoutSource(filepath.Join(filepath.Dir(file), "..", "..")); err == nil {
			return s, nil
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path == Module && semver.IsValid(info.Main.Version) && semver.Build(info.Main.Version) == "" {
		return downloadSource(ctx, info.Main.Version)
	}
	return Source{}, ErrNoSource
}

// checkoutSource returns a folder as a source.
func checkoutSource(dir string) (Source, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Source{}, err
	}
	path, err := modulePath(dir)
	if err != nil {
		return Source{}, err
	}
	if path != Module {
		return Source{}, fmt.Errorf("%s is the module %s, not %s", dir, path, Module)
	}
	return Source{Dir: dir}, nil
}

// downloadSource returns a version as a source.
func downloadSource(ctx context.Context, version string) (Source, error) {
	out, err := runGo(ctx, os.TempDir(), "mod", "download", "-json", Module+"@"+version)
	var got struct{ Dir, Version, Error string }
	if json.Unmarshal(out, &got) == nil && got.Error != "" {
		return Source{}, fmt.Errorf("downloading %s %s: %s", Module, version, got.Error)
	}
	if err != nil {
		return Source{}, fmt.Errorf("downloading %s %s: %w", Module, version, err)
	}
	return Source{Dir: got.Dir, Version: got.Version}, nil
}

// modulePath returns the path of the module whose go.mod is in dir.
func modulePath(dir string) (string, error) {
	name := filepath.Join(dir, "go.mod")
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	path := modfile.ModulePath(text)
	if path == "" {
		return "", fmt.Errorf("%s names no module", name)
	}
	return path, nil
}

// runGo runs the go command and returns its output. An error contains what the command printed.
func runGo(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	// With a workspace or the user's own flags, the go command could choose other versions than
	// those of the host.
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("the go command isn't installed: %w", err)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return out, fmt.Errorf("go %s: %s", args[0], bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
