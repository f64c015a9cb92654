package hostbuild

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/mod/module"
)

// Plugin is a package that registers plugins.
type Plugin struct {
	// Import is its import path.
	Import string
	// Version is the version asked for, such as v1.2.3 or latest; empty with a folder.
	Version string
	// If the plugin is local, Dir is the folder of its module, and Module is the module's path.
	Dir, Module string
}

// ParsePlugin parses a folder, or PACKAGE[@VERSION].
func ParsePlugin(text string) (Plugin, error) {
	if isFolder(text) {
		return pluginInFolder(text)
	}
	name, version, versioned := strings.Cut(text, "@")
	if err := module.CheckImportPath(name); err != nil {
		return Plugin{}, fmt.Errorf("%q is neither a folder nor an import path: %w", text, err)
	}
	if versioned && version == "" {
		return Plugin{}, fmt.Errorf("%q ends in @ without a version", text)
	}
	if !versioned {
		version = "latest"
	}
	return Plugin{Import: name, Version: version}, nil
}

// isFolder reports whether text means a folder: it looks like a path, or a folder of that name
// exists.
func isFolder(text string) bool {
	if filepath.IsAbs(text) || text == "." || text == ".." || strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../") {
		return true
	}
	info, err := os.Stat(text)
	return err == nil && info.IsDir()
}

// pluginInFolder returns the plugin in a local folder, which is a module or part of one.
func pluginInFolder(text string) (Plugin, error) {
	dir, err := filepath.Abs(text)
	if err != nil {
		return Plugin{}, err
	}
	if info, err := os.Stat(dir); err != nil {
		return Plugin{}, err
	} else if !info.IsDir() {
		return Plugin{}, fmt.Errorf("%s is a file; a plugin is a folder with a Go package", text)
	}
	for root := dir; ; root = filepath.Dir(root) {
		name, err := modulePath(root)
		if errors.Is(err, fs.ErrNotExist) && root != filepath.Dir(root) {
			continue
		}
		if err != nil {
			return Plugin{}, fmt.Errorf("%s is in no Go module: there is no go.mod in it or above", text)
		}
		below, err := filepath.Rel(root, dir)
		if err != nil {
			return Plugin{}, err
		}
		return Plugin{Import: path.Join(name, filepath.ToSlash(below)), Dir: root, Module: name}, nil
	}
}
