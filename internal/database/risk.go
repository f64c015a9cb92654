package database

import (
	"crypto/tls"
	"net"
	"strings"

	"github.com/pentrough/pentrough/transports"
)

// The risks of a connection.
const (
	inTheClear = "the database's password and data may be sent in the clear, since it isn't on a loopback address; "
	unchecked  = "the database's certificate isn't checked: an attacker in the network can read and change the data; "
)

// Risk says what an attacker could do with the connections to a URL, and how to prevent it. It
// returns "" if there is no risk, and for a URL that [Open] refuses.
func Risk(url string) string {
	db, err := Open(url, "", 0)
	if err != nil {
		return ""
	}
	switch db := db.(type) {
	case *postgres:
		risk := postgresRisk(db.config.Host, db.config.TLSConfig)
		for _, f := range db.config.Fallbacks { // further attempts, for example without TLS
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

// postgresRisk returns the risk of one attempt to connect.
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
