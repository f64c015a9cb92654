package device

// Listed is what an inventory says of a device.
type Listed struct {
	// Labels are the labels of the device.
	Labels map[string]string
	// Tokens are the hashes of the tokens with which the device may prove its name.
	Tokens []TokenHash
}

// Inventory lists the devices of one transport by their canonical names. It may change at any
// time. It is safe for concurrent use.
type Inventory interface {
	// Known reports whether the inventory lists the device.
	Known(device string) bool
	// Labels returns the labels of a device, or nil if the inventory doesn't list it. The caller
	// must not change them.
	Labels(device string) map[string]string
	// Tokens returns the hashes of a device's tokens, or nil. The caller must not change them.
	Tokens(device string) []TokenHash
	// Select returns the devices that have all the given labels, sorted by name. Without labels,
	// it returns every device.
	Select(labels map[string]string) []string
	// Watch registers f. After each change of the inventory, f is called with the devices that
	// were removed from it. f must not block.
	Watch(f func(gone []string))
}

// Screener is implemented by transports that need to know which devices an inventory lists.
type Screener interface {
	// Screen is called once, before Start, if there is an inventory.
	Screen(known Inventory)
}
