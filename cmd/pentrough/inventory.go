package main

import (
	"errors"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/inventory"
)

// readInventory reads the file of an inventory.
func readInventory(path string) (inventory.List, error) { return configs.ReadInventory(path) }

// checkInventory holds that a configuration's inventory can be read, and says of an error what to do next.
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
		return advise(fileError("reading the inventory", file, err), "correct [inventory] file, whose path is relative to the working directory, or write the file")
	}
	return advise(found("the inventory "+file, "problem", problems), `list each device as [device."10.0.0.7"], with labels = { site = "north" } if you like`)
}

// takeInventory opens the inventory that the configuration names, if it names one.
func (r *run) takeInventory() error {
	file := r.config.Inventory.File
	if file == "" {
		return nil
	}
	devices, err := inventory.Open(file, readInventory, r.log)
	if err != nil {
		return inventoryError(file, err)
	}
	r.devices, r.config.Router.Inventory = devices, devices
	r.log.Info("the inventory is read", "file", file, "devices", devices.Devices())
	return nil
}

// watchInventory begins to look for changes of the inventory.
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
