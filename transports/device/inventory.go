package device

// Inventory is what is known of the devices of one transport, under their canonical names. It may change at any time. It is safe for
// concurrent use.
type Inventory interface {
	// Known reports whether the device is listed.
	Known(device string) bool
	// Labels returns what the list says of a device, which the caller must not change; nil if the device isn't listed.
	Labels(device string) map[string]string
	// Select returns the devices that have all of these labels, in order of their names; without labels it is every device.
	Select(labels map[string]string) []string
	// Watch has f called each time that the list has changed, with the devices that it had before and has no more. f must not block.
	Watch(f func(gone []string))
}

// Screener is implemented by transports to which it matters which devices an inventory lists.
type Screener interface {
	// Screen is called before Start, once, if there is an inventory.
	Screen(known Inventory)
}
