package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/transports/device"
)

const (
	// longestToken is the size in bytes of the longest token that hash-token reads.
	longestToken = 64 << 10
	// shortestToken is the size in bytes under which hash-token warns.
	shortestToken = 16
)

func newHashToken() *cobra.Command {
	return &cobra.Command{
		Use:   "hash-token",
		Short: "Make the hash of a device's token, for the inventory",
		Long: `Read the token of a device from standard input, and print its hash for the inventory. A line end behind
the token doesn't belong to it. Each call prints another hash, because it contains a random salt.

A transport with auth = { by = "inventory" } checks devices with these hashes. A fast hash is safe
only if nobody can guess the token. So use a random token of at least 16 bytes.`,
		Example: `  openssl rand -hex 16 | tee /dev/stderr | pentrough devices hash-token
  pentrough devices hash-token < lock-1.token`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 { // the error must not show a token
				return advise(errors.New("hash-token takes no arguments"), "write the token to standard input, because other users of the machine can see arguments: pentrough devices hash-token < FILE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), longestToken+1))
			if err != nil {
				return fmt.Errorf("reading the token: %w", err)
			}
			token = bytes.TrimSuffix(bytes.TrimSuffix(token, []byte("\n")), []byte("\r"))
			switch n := len(token); {
			case n == 0:
				return advise(errors.New("there is no token on standard input"), "for example: openssl rand -hex 16 | tee /dev/stderr | pentrough devices hash-token")
			case n > longestToken:
				return fmt.Errorf("the token has more than %d bytes", longestToken)
			case n < shortestToken:
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: the token has only %d bytes; someone who reads the inventory can guess it. Use a random one of at least %d bytes\n", n, shortestToken)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), device.HashToken(token))
			return err
		},
	}
}
