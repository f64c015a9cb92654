package middleware_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
	"github.com/pentrough/pentrough/transports"
)

func TestKeyOf(t *testing.T) {
	for _, c := range []struct {
		key        middleware.Key
		body, want string
		fails      string
	}{
		{"", "no JSON", "lane", ""},
		{"metadata.header.X-Tenant", "no JSON", "blue", ""},
		{"metadata.absent", "{}", "", ""},
		{"payload.tenant", `{"tenant":"red"}`, "red", ""},
		{"payload.tenant.id", `{"tenant":{"id":12.50}}`, "12.50", ""},
		{"payload.on", `{"on":true}`, "true", ""},
		{"payload.tenant", `{}`, "", "key field tenant is missing"},
		{"payload.tenant", `{"tenant":[1]}`, "", "key field tenant isn't a string or number"},
		{"payload.tenant.id", `{"tenant":"red"}`, "", "key field tenant.id is missing"},
		{"payload.tenant", `{"tenant":"\ud800"}`, "", "reading key field tenant: byte 12: the string has half of a surrogate pair"},
		{"payload.tenant", `{"tenant":"red","tenant":null}`, "", ""},
		{"payload.tenant", `{"tenant":1}{}`, "", "reading key field tenant: byte 13: "},
		{"payload.tenant", "no JSON", "", "reading key field tenant: "},
	} {
		msg, _ := middlewaretest.Message(t.Context(), "id", "lane", c.body)
		msg.Metadata["header.X-Tenant"] = "blue"
		got, err := c.key.Of(msg)
		if got != c.want || (err == nil) != (c.fails == "") || err != nil && !strings.HasPrefix(err.Error(), c.fails) {
			t.Errorf("%q of %s: %q, %v", c.key, c.body, got, err)
		}
	}
}

func TestKeyOfGzip(t *testing.T) {
	msg, _ := middlewaretest.Message(t.Context(), "id", "lane", `{"iccid":89860045061950080012}`)
	if got, err := middleware.Key("payload.iccid").Of(handlertest.Gzip(t, msg)); got != "89860045061950080012" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	msg.Metadata["content_encoding"] = "deflate"
	if _, err := middleware.Key("payload.iccid").Of(msg); !errors.Is(err, transports.ErrEncoding) {
		t.Error(err)
	}
}

func TestKeyValidate(t *testing.T) {
	for key, ok := range map[middleware.Key]bool{
		"": true, "payload.a": true, "payload.a.b": true, "metadata.a": true, "metadata.header.X.Y": true, "metadata..": true,
		"payload": false, "payload.": false, "payload.a.": false, "payload..a": false, "metadata": false, "metadata.": false, "header.X": false, "tenant": false,
	} {
		if err := key.Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", key, err)
		}
	}
}
