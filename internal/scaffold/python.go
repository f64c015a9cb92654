package scaffold

import (
	"fmt"
	"strings"
)

// Python is what the folder of a handler in Python is made of.
type Python struct {
	// Name is what the handler calls itself.
	Name string
}

// PythonModule is the name of its module.
func (p Python) PythonModule() string { return strings.ReplaceAll(p.Name, "-", "_") }

// reserved are names that a module can't have beside the SDK and its test.
var reserved = map[string]bool{"pentrough": true, "unittest": true, "dataclasses": true, "json": true, "logging": true, "queue": true, "signal": true, "threading": true, "time": true, "typing": true, "base64": true, "os": true, "sys": true, "traceback": true}

// Write makes a new folder with the handler and the SDK.
func (p Python) Write(dir string) error {
	if err := checkName(p.Name); err != nil {
		return err
	}
	if reserved[p.PythonModule()] {
		return fmt.Errorf("%q can't be the name of its module, as it imports another of that name; choose another", p.PythonModule())
	}
	sdk, err := templates.ReadFile("python/pentrough.py")
	if err != nil {
		return err
	}
	files := map[string][]byte{"pentrough.py": sdk}
	if err := fill(files, "python/new", p.PythonModule(), p); err != nil {
		return err
	}
	return write(dir, files)
}
