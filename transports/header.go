package transports

import (
	"errors"
	"net/textproto"
	"slices"
	"strings"
)

// reservedHeaders has the headers that belong to the connection, or that come from the URL and the
// body.
var reservedHeaders = []string{
	"Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// CheckHeaderName returns an error if a configuration may not set the header of a request.
func CheckHeaderName(name string) error {
	switch {
	case name == "" || strings.ContainsFunc(name, isNotInToken):
		return errors.New("can't be a header's name")
	case slices.Contains(reservedHeaders, textproto.CanonicalMIMEHeaderKey(name)):
		return errors.New("is a header that the host sets itself")
	}
	return nil
}

// isNotInToken reports whether a header's name can't contain a rune (RFC 9110, 5.6.2).
func isNotInToken(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

// FitsHeader reports whether a text can be a header's value.
func FitsHeader(value string) bool {
	return !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}
