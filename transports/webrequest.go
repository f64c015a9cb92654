package transports

import (
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// This file checks the settings of requests to web servers: URLs and headers.

// ParseWebURL parses the URL of a web server. The error doesn't quote the URL, because it may have
// a password.
func ParseWebURL(text Secret) (*url.URL, error) {
	u, err := url.Parse(string(text))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New(`isn't an http or https URL with a host, such as "https://hooks.example.com/orders"`)
	}
	return u, nil
}

// CheckHeaders returns why a configuration can't set headers, in the order of their names.
func CheckHeaders(headers map[string]Secret) (problems []error) {
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if err := CheckHeaderName(name); err != nil {
			problems = append(problems, fmt.Errorf("%q %w", name, err))
		} else if !FitsHeader(string(headers[name])) {
			problems = append(problems, fmt.Errorf("the value of %q has a line end or another control character", name))
		}
	}
	return problems
}

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
