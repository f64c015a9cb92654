package database

import (
	"crypto/tls"
	"net"
	"strings"

	"github.com/pentrough/pentrough/transports"
)

// What others on the way to a server can do.
const (
	inTheClear = "the database's password and data may be sent in the clear, as it isn't on a loopback address; "
	unchecked  = "the database's certificate isn't checked: anybody on the way can read and change what is sent; "
)

// Risk says what others could do with the connections to a URL, and how to prevent it. It is empty
// if they can do nothing, and for a URL that [Open] refuses.
func Risk(url string) string {
	db, err := Open(url, "", 0)
	if err != nil {
		return ""
	}
	switch db := db.(type) {
	case *postgres:
		risk := postgresRisk(db.config.Host, db.config.TLSConfig)
		for _, f := range db.config.Fallbacks { // the next attempts, without TLS after one with it
			if r := postgresRisk(f.Host, f.TLSConfig); risk == "" || r != "" && strings.HasPrefix(r, inTheClear) {
				risk = r
			}
		}
		return risk
	case *mysqlServer:
		host, _, _ := net.SplitHostPort(db.config.Addr)
		switch {
		case db.config.Net == "unix" || transports.Loopback(host):
		case db.config.TLSConfig == "skip-verify":
			return unchecked + "write tls=true"
		case db.config.TLSConfig != "true":
			return inTheClear + "write tls=true"
		}
	}
	return ""
}

// postgresRisk is the risk of one attempt to connect.
func postgresRisk(host string, c *tls.Config) string {
	switch {
	case strings.HasPrefix(host, "/") || transports.Loopback(host):
		return ""
	case c == nil:
		return inTheClear + "write sslmode=verify-full"
	case c.InsecureSkipVerify && c.VerifyPeerCertificate == nil:
		return unchecked + "write sslmode=verify-full"
	default:
		return ""
	}
}
