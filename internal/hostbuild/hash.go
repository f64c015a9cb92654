package hostbuild

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/dirhash"
)

// hashLocalModules returns a hash for each local module over the files that are compiled or
// embedded. go.sum has no hash for those.
func (b *building) hashLocalModules(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	for _, p := range b.Plugins {
		if p.Dir == "" {
			continue
		}
		files, err := b.moduleFiles(ctx, p)
		if err != nil {
			return nil, err
		}
		files = append(files, "go.mod")
		slices.Sort(files)
		h, err := dirhash.Hash1(slices.Compact(files), func(name string) (io.ReadCloser, error) { return os.Open(filepath.Join(p.Dir, name)) })
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", p.Dir, err)
		}
		all[p.Module] = h
	}
	return all, nil
}

// moduleFiles returns the names of a local module's files that become part of the host.
func (b *building) moduleFiles(ctx context.Context, p Plugin) ([]string, error) {
	out, err := runGo(ctx, b.Dir, "list", "-modfile="+b.modfile(), "-deps", "-json=Dir,Module,GoFiles,CgoFiles,CFiles,CXXFiles,HFiles,SFiles,EmbedFiles", p.Import)
	if err != nil {
		return nil, err
	}
	var names []string
	packages := json.NewDecoder(bytes.NewReader(out))
	for {
		var pkg struct {
			Dir                                                             string
			Module                                                          *struct{ Path string }
			GoFiles, CgoFiles, CFiles, CXXFiles, HFiles, SFiles, EmbedFiles []string
		}
		switch err := packages.Decode(&pkg); {
		case errors.Is(err, io.EOF):
			return names, nil
		case err != nil:
			return nil, fmt.Errorf("reading the output of go list for %s: %w", p.Import, err)
		case pkg.Module == nil || pkg.Module.Path != p.Module:
			continue
		}
		for _, name := range slices.Concat(pkg.GoFiles, pkg.CgoFiles, pkg.CFiles, pkg.CXXFiles, pkg.HFiles, pkg.SFiles, pkg.EmbedFiles) {
			below, err := filepath.Rel(p.Dir, filepath.Join(pkg.Dir, name))
			if err != nil {
				return nil, err
			}
			names = append(names, filepath.ToSlash(below))
		}
	}
}
