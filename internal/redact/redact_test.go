package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

func TestTextLosesSecrets(t *testing.T) {
	s := new(Set)
	for _, secret := range []string{"hush-hush", "p@ss word\"1", "abcd", "a", "", "guest", "line one of it\nline two of it"} {
		s.Secret(secret)
	}
	for _, value := range []string{"key-of-the-api", "5672", "10.0.0.7", "10.0.0.7:5672", "30s", "/etc/file", "broker.internal", "shared-secret"} {
		s.Value(value)
	}
	s.Open("broker.internal")
	s.Secret("shared-secret")
	s.Open("shared-secret")
	for text, want := range map[string]string{
		"write postgres://USER:PASSWORD@HOST":                  "write postgres://USER:PASSWORD@HOST",
		"key hush-hush, inside xhush-hushx":                    "key [redacted], inside x[redacted]x",
		"abcd, xabcd, abcdx, 'abcd'":                           "[redacted], xabcd, abcdx, '[redacted]'",
		"abcdabcd abcd":                                        "abcdabcd [redacted]",
		"a guest has a name":                                   "a guest has a name",
		`says "p@ss word\"1"`:                                  `says "[redacted]"`,
		`twice "\"p@ss word\\\"1\""`:                           `twice "\"[redacted]\""`,
		"in a query: p%40ss+word%221":                          "in a query: [redacted]",
		"second: line two of it":                               "second: [redacted]",
		"got key-of-the-api from 5672":                         "got [redacted] from 5672",
		"10.0.0.7 10.0.0.7:5672 30s /etc/file broker.internal": "10.0.0.7 10.0.0.7:5672 30s /etc/file broker.internal",
		"shared-secret":                                        "[redacted]",
		"amqp://someone:else#here@host/ and http://u:p@h, http://h:80/a@b": "amqp://[redacted]@host/ and http://[redacted]@h, http://h:80/a@b",
	} {
		if got := s.Text(text); got != want {
			t.Errorf("%s\n is %s\nnot %s", text, got, want)
		}
	}
}

// A Python plugin prints a secret with repr, or sends it as JSON, and the host's log quotes that.
func TestASecretIsFoundInAStringInAString(t *testing.T) {
	secret := "it's \"a\\b\" </é>"
	s := new(Set)
	s.Secret(secret)
	inJSON, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		secret, strconv.Quote(secret), string(inJSON), `'it\'s "a\\b" </é>'`, `"it's \"a\\b\" </é>"`, `it's "a\\b" </é>`, strconv.QuoteToASCII(secret),
		url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret),
	} {
		for _, shown := range []string{text, strconv.Quote(text)} {
			if got := s.Text("x" + shown + "x"); strings.Contains(got, "a") && strings.Trim(got, `x"'\`) != Mark {
				t.Errorf("%s became %s", shown, got)
			}
		}
	}
}

func TestASecretIsFoundAsOthersWriteIt(t *testing.T) {
	s := new(Set)
	s.Secret(" hush+ab/cd= \n")
	s.Secret("18080")
	s.Secret("987654321")
	for text, want := range map[string]string{
		`{"port":18080,"all":[1,18080,987654321],"n":118080,"m":9876543210}`: `{"port":"[redacted]","all":[1,"[redacted]","[redacted]"],"n":118080,"m":9876543210}`,
		"PIN 18080, or 987654321": "PIN [redacted], or [redacted]",
		"the key 'hush+ab/cd='":   "the key '[redacted]'", `{"key":" hush+ab\/cd= "}`: `{"key":" [redacted] "}`} {
		if got := s.Text(text); got != want {
			t.Errorf("%s became %s, not %s", text, got, want)
		}
	}
}

func TestWhatIsOpenInAURL(t *testing.T) {
	s := new(Set)
	for _, value := range []string{"broker.internal", "vhost-one", "webhook-path-1"} {
		s.Value(value)
	}
	s.URL("amqp://bob:pass-word-1@broker.internal/vhost-one")
	s.URL("HTTPS://hooks.example.com/webhook-path-1")
	for text, want := range map[string]string{
		"dialing broker.internal, vhost vhost-one": "dialing broker.internal, vhost vhost-one",
		"POST /webhook-path-1":                     "POST /[redacted]",
		"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bob:pass-word-1")): "Authorization: Basic [redacted]",
		"such as amqp://guest:guest@127.0.0.1/":                                                "such as amqp://guest:guest@127.0.0.1/",
		"amqp://USER:PASSWORD@host, amqp://bob:secret@host":                                    "amqp://USER:PASSWORD@host, amqp://[redacted]@host",
	} {
		if got := s.Text(text); got != want {
			t.Errorf("%s\n is %s\nnot %s", text, got, want)
		}
	}
}

// A parser may not read a URL, or read it differently from what its author meant. Its error then
// quotes at most a few letters of the password.
func TestNoReaderOfAURLTellsItsPassword(t *testing.T) {
	for _, c := range []string{"#", "/", "?", "@", "%", "%zz", " ", "[", "\"", "^"} {
		for _, scheme := range []string{"amqp", "postgres", "mysql", "https"} {
			raw := scheme + "://user:1234" + c + "rest-of-it@host:99/name"
			s := new(Set)
			s.URL(raw)
			texts := []string{raw, fmt.Sprintf("%q", raw)}
			if strings.Contains("#/?@", c) {
				texts = append(texts, "dialing user:1234")
			}
			if u, err := url.Parse(raw); err != nil {
				texts = append(texts, err.Error())
			} else {
				texts = append(texts, u.Host, u.Fragment, u.Path)
			}
			if scheme == "https" && (c == "/" || c == "?") {
				continue // https://host:1234/rest-of-it@host is a URL without a user part
			}
			for _, text := range texts {
				if got := s.Text(text); strings.Contains(got, "1234") || strings.Contains(got, "rest-of-it") {
					t.Errorf("%s: %q became %q", raw, text, got)
				}
			}
		}
	}
}

func TestUnescapedNamesTheCharacter(t *testing.T) {
	for raw, want := range map[string]string{
		"amqp://user:1234#rest@host":              `"#" as %23`,
		"amqp://user:pa/ss@host/":                 `"/" as %2F`,
		"amqp://user:pa?ss@host/":                 `"?" as %3F`,
		"postgres://u:p@ss@h":                     `"@" as %40`,
		"amqp://user:50%@host":                    `"%" as %25`,
		"amqp://user:a#b#c d@host":                `"#" as %23, " " as %20`,
		"amqp://user:ü@host":                      "the byte 0xc3 as %C3, the byte 0xbc as %BC",
		"amqp://user:p%23ss@host:5672/v":          "",
		"amqp://host:5672/v":                      "",
		"https://host:8080/a@b?c=d@e":             "",
		"postgres://host:5432/name?x=a@b":         "",
		"postgres://u:p@host:5432/name?x=a@b":     "",
		"https://host/?mail=a@b":                  "",
		"amqp://user:it's(ok)!*~@host":            "",
		"not a URL, but a#b@c":                    "",
		"redis://:only-a-password@localhost:6379": "",
	} {
		if got := Unescaped(raw); got != want {
			t.Errorf("%s: %s, not %s", raw, got, want)
		}
	}
}

func TestAWriterLosesWhatItsSetLearns(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out, new(Set))
	fmt.Fprintln(w, "before hush-hush")
	SetOf(w).Secret("hush-hush")
	fmt.Fprintln(w, "after hush-hush")
	if got := out.String(); got != "before hush-hush\nafter [redacted]\n" {
		t.Errorf("%q was written", got)
	}
	if SetOf(&out) == SetOf(w) {
		t.Error("another writer has the same set")
	}
}
