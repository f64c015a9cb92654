package stdio

import (
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// The error of a wrong message names the wrong key and the allowed values.
func TestParseMessageErrors(t *testing.T) {
	for text, want := range map[string]string{
		`{"payload":{"t":21}}`:              `the message: "payload" is an object; allowed: a string, which may contain JSON as text; payload_b64 for any bytes`,
		`{"payload":[1],"id":5}`:            `the message: "payload" is a list; allowed: a string`,
		`{"payload":21.5}`:                  `"payload" is a number; allowed: a string`,
		`{"payload":null}`:                  `"payload" is null; allowed: a string`,
		`{"payload_b64":true}`:              `"payload_b64" is true; allowed: a string in base64`,
		`{"payload":"","id":7}`:             `"id" is a number; allowed: a string`,
		`{"payload":"","to":["x"]}`:         `"to" is a list; allowed: a string`,
		`{"payload":"","metadata":[]}`:      `"metadata" is a list; allowed: an object of strings`,
		`{"payload":"","metadata":{"n":1}}`: `"metadata.n" is a number; allowed: a string`,
		`"text"`:                            `"message" is a string; allowed: an object such as {"payload":"text"}`,
		`{"payload":{"t":}}`:                `the message: byte 17: '}'; expected: a value`,
		`{"payload":`:                       `the message: byte 12: the end; expected: a string`,
		`{"payload":"","payload_b64":""}`:   "the message has two payloads",
	} {
		s := jsontext.New([]byte(text))
		if m, _, err := ParseMessage(&s); err == nil || m != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
