package scaffold

import (
	"fmt"
	"strings"
)

// Python describes a new handler in Python.
type Python struct {
	// Name is what the handler calls itself.
	Name string
}

// PythonModule returns the name of the Python module.
func (p Python) PythonModule() string { return strings.ReplaceAll(p.Name, "-", "_") }

// reservedModules are names that would hide modules which the SDK and its test import.
var reservedModules = map[string]bool{"pentrough": true, "unittest": true, "dataclasses": true, "json": true, "logging": true, "queue": true, "signal": true, "threading": true, "time": true, "typing": true, "base64": true, "os": true, "sys": true, "traceback": true}

// Write creates a folder with the handler and the SDK.
func (p Python) Write(dir string) error {
	if err := checkName(p.Name); err != nil {
		return err
	}
	if reservedModules[p.PythonModule()] {
		return fmt.Errorf("%q can't be the name of its module, as it imports another of that name; choose another", p.PythonModule())
	}
	sdk, err := templates.ReadFile("python/pentrough.py")
	if err != nil {
		return err
	}
	files := map[string][]byte{"pentrough.py": sdk}
	if err := renderTemplates(files, "python/new", p.PythonModule(), p); err != nil {
		return err
	}
	return writeFolder(dir, files)
}
