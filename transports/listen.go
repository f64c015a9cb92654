package transports

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/pentrough/pentrough/internal/plugin"
)

// CheckListen checks the form of an address to listen on. The error says what is wrong and what
// was probably meant. CheckListen doesn't check whether the machine has the address.
func CheckListen(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err == nil && port != "" {
		return nil
	}
	what, meant := strconv.Quote(addr)+" is no address to listen on", ""
	u, notURL := url.Parse(addr)
	switch number, notNumber := strconv.ParseUint(addr, 10, 16); {
	case notNumber == nil:
		meant = ":" + strconv.FormatUint(number, 10)
	case notURL == nil && strings.Contains(addr, "://") && u.Port() != "":
		meant = u.Host
	case err == nil:
		what += ": it has no port"
	case addr != "" && !strings.Contains(addr, ":"):
		host = addr
		what += ": it has no port"
	case strings.Count(addr, ":") > 1 && !strings.Contains(addr, "["):
		what += ": an IPv6 address needs brackets"
	}
	if host != "" {
		what += ", such as " + strconv.Quote(net.JoinHostPort(host, "8123"))
	}
	return errors.New(plugin.Describe(what, "HOST:PORT, or :PORT for every address of the machine", meant))
}
