package byteexpr

// Input is what one run of an expression reads.
type Input struct {
	// Data are the bytes that the functions read: a frame, a command, or a command's payload.
	Data []byte
	// Values may be nil in a partial scope.
	*Values
}

// Values has the values that variables return, and the texts of a run. A zero value with a Limit
// is ready for use.
type Values struct {
	// Match has the places of the groups in data, as package regexp returns them.
	Match            []int
	Command          []byte
	Device, Unit, ID string
	// Number is the value of [Counter].
	Number int
	// Limit is the largest size of the stack.
	Limit int
	// stack has the texts of the run. Each expression of type text removes the texts of its parts,
	// and then appends its result.
	stack []byte
}

// keptStack is the largest stack that is kept for the next run.
const keptStack = 4096

// Reset clears all values but the limit, so that they refer to no frame.
func (v *Values) Reset() {
	stack := v.stack[:0]
	if cap(stack) > keptStack {
		stack = nil
	}
	*v = Values{stack: stack, Limit: v.Limit}
}

// pop returns the texts above mark and removes them from the stack. They are valid until the next
// push.
func (v *Values) pop(mark int) []byte {
	top := v.stack[mark:]
	v.stack = v.stack[:mark]
	return top
}

// PushBytes appends bytes to the text of a variable.
func (v *Values) PushBytes(b []byte) { v.stack = append(v.stack, b...) }

// PushText is PushBytes for a string.
func (v *Values) PushText(text string) { v.stack = append(v.stack, text...) }

// place returns where size bytes begin at index i, which counts from the end if it is negative.
func (in Input) place(i, size int) (at int, ok bool) {
	if i < 0 {
		i += len(in.Data)
	}
	return i, i >= 0 && i <= len(in.Data) && size >= 0 && size <= len(in.Data)-i
}
