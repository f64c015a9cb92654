package main

import (
	"errors"
	"net/url"
	"strings"
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
