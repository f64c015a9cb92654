package database

import (
	"strings"
	"testing"
)

func TestRisk(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://u:p@db/x":                             inTheClear, // sslmode=prefer
		"postgres://u:p@db/x?sslmode=allow":               inTheClear,
		"postgres://u:p@db/x?sslmode=disable":             inTheClear,
		"postgres://u:p@db/x?sslmode=require":             unchecked,
		"postgres://u:p@db/x?sslmode=verify-ca":           "",
		"postgres://u:p@db/x?sslmode=verify-full":         "",
		"postgres://u:p@127.0.0.1,db/x":                   inTheClear,
		"postgres://u:p@127.0.0.1,[::1]/x":                "",
		"postgres://u:p@localhost/x?sslmode=disable":      "",
		"postgres:///x?host=/run/postgresql":              "",
		"mysql://u:p@db/x":                                inTheClear,
		"mysql://u:p@[2001:db8::1]/x?tls=false":           inTheClear,
		"mysql://u:p@db/x?tls=preferred":                  inTheClear,
		"mysql://u:p@db/x?tls=skip-verify":                unchecked,
		"mysql://u:p@db:3307/x?tls=true":                  "",
		"mysql://u:p@127.0.0.1/x":                         "",
		"mysql://u:p@[::1]:3306/x":                        "",
		"mysql://u:p@db/x?socket=/run/mysqld/mysqld.sock": "",
		"sqlite:x.db":              "",
		"postgres://u:p@db:port/x": "", "oracle://u:p@db/x": "", "": "", // refused
	} {
		if got := Risk(url); (got == "") != (want == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", url, got)
		}
	}
}
