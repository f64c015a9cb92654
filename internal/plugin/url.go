package plugin

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pentrough/pentrough/internal/spelling"
)

// urlKeys are the settings that contain a URL.
var urlKeys = []string{"url", "endpoint"}

var schemeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]{0,20}$`)

// CheckURL returns an error that names the wrong part of a URL and what was probably meant. It
// quotes no part that may belong to a password. The schemes are those that the URL may have. After
// a scheme that ends in a colon, such as "sqlite:", the URL has a path and no host.
func CheckURL(text string, schemes []string) error {
	var allowed []string
	for _, s := range schemes {
		if strings.HasSuffix(s, ":") {
			if strings.HasPrefix(text, s) {
				return nil
			}
			allowed = append(allowed, s+"PATH")
			continue
		}
		allowed = append(allowed, s+"://")
	}
	scheme, rest, ok := strings.Cut(text, "://")
	switch {
	case strings.TrimSpace(text) != text:
		return errors.New("begins or ends with white space")
	case !ok:
		return errors.New(Describe("isn't a URL, because it doesn't begin with a scheme", Names(allowed), ""))
	case !schemeName.MatchString(scheme):
		return errors.New(Describe("its scheme has characters that a scheme can't have", Names(allowed), ""))
	case !slices.ContainsFunc(schemes, func(s string) bool { return strings.EqualFold(s, scheme) }):
		meant := spelling.Nearest(scheme, schemes)
		if meant != "" {
			meant += "://"
		}
		return errors.New(Describe(fmt.Sprintf("the scheme %q is not known here", scheme), Names(allowed), meant))
	}
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
	}
	hosts := authority[strings.LastIndexByte(authority, '@')+1:]
	for host := range strings.SplitSeq(hosts, ",") { // PostgreSQL accepts several hosts
		if err := checkHostPort(host); err != nil {
			return err
		}
	}
	if hosts == "" && strings.HasPrefix(strings.ToLower(scheme), "http") {
		return errors.New("it has no host")
	}
	if strings.Contains(hosts, ",") {
		return nil
	}
	if _, err := url.Parse(text); err != nil {
		return errors.New("isn't a URL: a character is in a place where it isn't allowed")
	}
	return nil
}

// checkHostPort checks the port of HOST:PORT. The host and the port may be missing.
func checkHostPort(host string) error {
	after := host
	if i := strings.LastIndexByte(host, ']'); i >= 0 {
		after = host[i+1:]
	} else if strings.Count(host, ":") > 1 {
		return errors.New("an IPv6 address must be in brackets, such as [::1]")
	}
	_, port, ok := strings.Cut(after, ":")
	if !ok || port == "" {
		return nil
	}
	n, err := strconv.ParseUint(port, 10, 64)
	switch {
	case err == nil && len(port) < 6 && (n < 1 || n > 65535):
		return fmt.Errorf("the port %s is not from 1 to 65535", port)
	case err != nil || len(port) > 5:
		// Don't quote it. If the URL lacks its @, this part is a user and a password.
		return errors.New("the part after the host isn't a port from 1 to 65535")
	}
	return nil
}
