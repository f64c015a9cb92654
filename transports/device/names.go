package device

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/transports/protocol"
)

// CheckName returns an error of kind ErrDevice if name can't name a device. The same rules apply
// to ids: see docs/messages.md.
func CheckName(name string) error {
	if err := printable.CheckName(name); err != nil {
		return fmt.Errorf("%w: the name %w", ErrDevice, err)
	}
	return nil
}

// Canonical implements [Devices].
func (r *Registry) Canonical(name string) (string, error) {
	device, unit := r.splitUnit(name)
	canonical, err := r.canonical(device)
	if err != nil || unit == "" {
		return canonical, err
	}
	canonical += unitSeparator + unit
	return canonical, CheckName(canonical)
}

// Base implements [Devices].
func (r *Registry) Base(device string) string {
	base, _ := r.splitUnit(device)
	return base
}

// splitUnit splits the name of a unit into its device and the unit.
func (r *Registry) splitUnit(name string) (device, unit string) {
	if r.units {
		device, unit, _ = strings.Cut(name, unitSeparator)
		return device, unit
	}
	return name, ""
}

// unitSeparator is between the name of a device and that of its unit.
const unitSeparator = "/"

// Check implements [Devices].
func (r *Registry) Check(c protocol.Command) error {
	buf := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(buf)
	c.Device, c.Unit = r.splitUnit(c.Device)
	dialog := r.plain
	if !dialog.plain {
		dialog = NewDialog(r.protocol, netip.AddrPort{}, c.Device)
	}
	_, _, err := dialog.encode((*buf)[:0], c)
	if errors.Is(err, protocol.ErrLater) {
		return nil
	}
	return payloadError(err)
}

func payloadError(err error) error {
	if err == nil || errors.Is(err, ErrPayload) {
		return err
	}
	return &payloadRefusal{err}
}

// payloadRefusal is a framing's error for a payload. Its text is the framing's, and it is also of
// kind ErrPayload.
type payloadRefusal struct{ error }

func (e *payloadRefusal) Unwrap() []error { return []error{ErrPayload, e.error} }
