package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/pentrough/pentrough/transports"
)

// webAddress parses the address of an HTTP server. An address without a scheme is http.
func webAddress(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New(u.Redacted() + " is neither http nor https")
	case u.Hostname() == "":
		return nil, errors.New(u.Redacted() + " names no host")
	}
	return u, nil
}

// warnExposed warns if a password or a token would cross a network without TLS. address is an AMQP
// URL or an address that webAddress takes.
func warnExposed(errOut io.Writer, address, token string) {
	u, err := webAddress(address)
	if strings.HasPrefix(address, "amqp://") {
		u, err = url.Parse(address)
	}
	if err != nil || transports.Loopback(u.Hostname()) {
		return
	}
	if u.Scheme == "amqp" || u.Scheme == "http" && (token != "" || u.User != nil) {
		fmt.Fprintln(errOut, "warning: the password or token is sent in the clear, because the address isn't a loopback address; use TLS")
	}
}
