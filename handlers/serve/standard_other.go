//go:build !unix

package serve

import "os"

// standardFiles takes standard input and output for the protocol alone, as far as Go code is concerned.
func standardFiles() (in, out *os.File, err error) {
	in, out = os.Stdin, os.Stdout
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	os.Stdin, os.Stdout = nothing, os.Stderr
	return in, out, nil
}
