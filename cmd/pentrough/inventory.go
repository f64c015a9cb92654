package main

import (
	"errors"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/inventory"
)

// readInventory reads an inventory file.
func readInventory(path string) (inventory.List, error) { return configs.ReadInventory(path) }

// checkInventory returns an error if the configuration's inventory can't be read. The error says
// what to do next.
func checkInventory(c *configs.Config) error {
	if c.Inventory.File == "" {
		return nil
	}
	_, err := readInventory(c.Inventory.File)
	return inventoryError(c.Inventory.File, err)
}

func inventoryError(file string, err error) error {
	if err == nil {
		return nil
	}
	problems, ok := errors.AsType[configs.Problems](err)
	if !ok {
		return advise(fileError("reading the inventory", file, err), "correct file in [inventory], or write the file; a relative path starts at the working directory")
	}
	return advise(newFoundError("the inventory "+file, "problem", problems), `list each device as [device."10.0.0.7"]; labels = { site = "north" } is optional`)
}

// openInventory opens the inventory that the configuration names, if it names one.
func (r *run) openInventory() error {
	file := r.config.Inventory.File
	if file == "" {
		return nil
	}
	devices, err := inventory.Open(file, readInventory, r.log)
	if err != nil {
		return inventoryError(file, err)
	}
	r.devices, r.config.Router.Inventory = devices, devices
	r.log.Info("read the inventory", "file", file, "devices", devices.Devices())
	return nil
}

// watchInventory starts the watch for changes of the inventory file.
func (r *run) watchInventory() {
	if r.devices != nil {
		r.devices.Start()
	}
}

func (r *run) closeInventory() {
	if r.devices != nil {
		r.devices.Close()
	}
}
