package rules

// input is what the expressions of one frame or command read. The zero value with data is ready.
type input struct {
	// data are the bytes that the functions read: a frame, a command, or a command's payload.
	data []byte
	// match has the places of the groups in data, as package regexp returns them.
	match            []int
	command          []byte
	device, unit, id string
	// number is the value of the variable n.
	number int
	// stack has the texts of the run. Each expression of type text appends its result, and removes
	// what it has put there before.
	stack []byte
	// limit is the largest size of the stack.
	limit int
}

// keptStack is the largest stack that is kept for the next run.
const keptStack = 4096

// reset clears the input for the next run, so that it refers to no frame.
func (in *input) reset() {
	stack := in.stack[:0]
	if cap(stack) > keptStack {
		stack = nil
	}
	*in = input{stack: stack}
}

// pop returns the texts above mark and removes them from the stack. They are valid until the next
// push.
func (in *input) pop(mark int) []byte {
	top := in.stack[mark:]
	in.stack = in.stack[:mark]
	return top
}

func (in *input) pushBytes(b []byte)   { in.stack = append(in.stack, b...) }
func (in *input) pushText(text string) { in.stack = append(in.stack, text...) }

// place returns where size bytes begin at index i, which counts from the end if it is negative.
func (in *input) place(i, size int) (at int, ok bool) {
	if i < 0 {
		i += len(in.data)
	}
	return i, i >= 0 && i <= len(in.data) && size >= 0 && size <= len(in.data)-i
}
