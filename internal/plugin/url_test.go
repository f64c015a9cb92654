package plugin

import (
	"strings"
	"testing"
)

func TestCheckURL(t *testing.T) {
	amqp, web, sql := []string{"amqp", "amqps"}, []string{"http", "https"}, []string{"postgres", "postgresql", "mysql", "mariadb", "sqlite:"}
	for _, c := range []struct {
		text    string
		schemes []string
		want    string
	}{
		{"amqp://guest:guest@127.0.0.1:5672/", amqp, ""}, {"AMQPS://h", amqp, ""}, {"amqp:///vhost", amqp, ""}, {"amqp://u:hush@[::1]:5672/v", amqp, ""},
		{"ampq://u:hush@h:99999/", amqp, `the scheme "ampq" is not known here; allowed: amqp://, amqps://; did you mean "amqp://"?`},
		{"http://h", amqp, `the scheme "http" is not known here; allowed: amqp://, amqps://`},
		{"amqp://u:hush@h:99999/", amqp, "the port 99999 is not from 1 to 65535"},
		{"amqp://u:hush@h:0/", amqp, "the port 0 is not from 1 to 65535"},
		{"amqp://u:hush@h:56722222222222222222222/", amqp, "the part after the host isn't a port from 1 to 65535"},
		{"amqp://user:hush", amqp, "the part after the host isn't a port from 1 to 65535"},
		{"amqp://user:12345678", amqp, "the part after the host isn't a port from 1 to 65535"},
		{"amqp://u:hush@::1:5672/", amqp, "an IPv6 address must be in brackets, such as [::1]"},
		{"127.0.0.1:5672", amqp, "isn't a URL, because it doesn't begin with a scheme; allowed: amqp://, amqps://"},
		{"amqp:/u:hush@h", amqp, "isn't a URL, because it doesn't begin with a scheme; allowed: amqp://, amqps://"},
		{" amqp://h", amqp, "begins or ends with white space"}, {"amqp://h\n", amqp, "begins or ends with white space"},
		{"u:hush@amqp://h", amqp, "its scheme has characters that a scheme can't have; allowed: amqp://, amqps://"},
		{"amqp://ho st/", amqp, "isn't a URL: a character is in a place where it isn't allowed"},
		{"https://hooks.example.com/a:b@c?d=e:f", web, ""}, {"https:///path", web, "it has no host"}, {"htps://h", web, `the scheme "htps" is not known here; allowed: http://, https://; did you mean "https://"?`},
		{"postgres://u:hush@h1:5432,h2:5433/db", sql, ""}, {"postgres:///db?host=/run/postgresql", sql, ""}, {"postgres://h1:5432,h2:70000/db", sql, "the port 70000 is not from 1 to 65535"},
		{"mysql:///db?socket=/run/mysqld.sock", sql, ""}, {"sqlite:x.db", sql, ""}, {"sqlite:///x.db", sql, ""},
		{"postgress://h/db", sql, `the scheme "postgress" is not known here; allowed: postgres://, postgresql://, mysql://, mariadb://, sqlite:PATH; did you mean "postgres://"?`},
		{"x.db", sql, "isn't a URL, because it doesn't begin with a scheme; allowed: postgres://, postgresql://, mysql://, mariadb://, sqlite:PATH"},
	} {
		got := ""
		if err := CheckURL(c.text, c.schemes); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s\nnot %s", c.text, got, c.want)
		}
		if strings.Contains(got, "hush") {
			t.Errorf("%s: a password is shown: %s", c.text, got)
		}
	}
}
