package iec104

import (
	"encoding/binary"
	"fmt"
)

// asdu is a message of the application layer:
//
//	type | number of objects | cause (2 bytes) | common address (2) | objects
//
// Each object begins with its address (3 bytes). If the highest bit of the number is set, only the
// first object has an address. Numbers have their lowest byte first.
type asdu []byte

const (
	minASDU = 6
	// maxASDU is the size of the largest ASDU that fits into a frame, behind the control field.
	maxASDU = maxLength - controlSize

	// firstControl is the first type of the messages that the controlling station sends.
	firstControl = 45
	typeRead     = 102

	causeRequested     = 5
	causeActivated     = 7
	causeDeactivated   = 9
	causeUnknownType   = 44
	causeUnknownObject = 47
)

func (a asdu) cause() byte { return a[2] & 0x3f }

// key returns the key of a command of type t with the addresses of a.
func (a asdu) key(t byte) string {
	object := "-"
	if len(a) >= minASDU+3 {
		object = fmt.Sprint(int(a[6]) | int(a[7])<<8 | int(a[8])<<16)
	}
	return fmt.Sprintf("%d/%d/%s", t, binary.LittleEndian.Uint16(a[4:]), object)
}

// answers returns the key of the command that a answers, or "".
//
// The cause 10, the end of an activation, is no answer, because the confirmation has already
// answered the command. If it were one, it would answer the next command for the same object.
func (a asdu) answers() string {
	switch cause := a.cause(); {
	case a[0] >= firstControl && (cause == causeActivated || cause == causeDeactivated),
		a[0] >= firstControl && cause >= causeUnknownType && cause <= causeUnknownObject:
		return a.key(a[0])
	case a[0] < firstControl && cause == causeRequested:
		return a.key(typeRead)
	}
	return ""
}
