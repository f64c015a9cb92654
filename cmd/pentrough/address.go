package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/pentrough/pentrough/transports"
)

// webAddress reads the address of something that speaks HTTP; host:port alone is http.
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

// warnExposed warns if others on the way to an address could read a password or a token. address
// is an AMQP URL or what webAddress takes.
func warnExposed(errOut io.Writer, address, token string) {
	u, err := webAddress(address)
	if strings.HasPrefix(address, "amqp://") {
		u, err = url.Parse(address)
	}
	if err != nil || transports.Loopback(u.Hostname()) {
		return
	}
	if u.Scheme == "amqp" || u.Scheme == "http" && (token != "" || u.User != nil) {
		fmt.Fprintln(errOut, "warning: password or token are sent in the clear, as the address isn't a loopback one; use TLS")
	}
}
