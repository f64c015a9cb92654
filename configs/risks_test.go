package configs

import (
	"strings"
	"testing"

	_ "github.com/pentrough/pentrough/handlers/httprequest"
	_ "github.com/pentrough/pentrough/handlers/sql"
	_ "github.com/pentrough/pentrough/transports/amqp"
	_ "github.com/pentrough/pentrough/transports/http"
	_ "github.com/pentrough/pentrough/transports/memory"
)

func TestWhatIsSentInTheClearIsWarnedOf(t *testing.T) {
	for text, want := range map[string]string{
		"type = \"amqp\"\nurl = \"amqp://u:hush-hush@broker.internal/\"":                    "transport.t.url: password and messages are sent in the clear",
		"type = \"amqp\"\nhost = \"10.0.0.7\"":                                              "transport.t.host: password and messages are sent in the clear",
		"type = \"amqp\"\nurl = \"amqps://u:hush-hush@broker.internal/\"":                   "",
		"type = \"amqp\"\nhost = \"10.0.0.7\"\ntls = {}":                                    "",
		"type = \"amqp\"\nurl = \"amqp://u:hush-hush@[::1]/\"":                              "",
		"type = \"amqp\"\nhost = \"localhost\"":                                             "",
		"type = \"amqp\"\nhost = \"10.0.0.7\"\ntls = { insecure = true }":                   "transport.t.tls.insecure: the server's certificate isn't checked",
		"type = \"http\"\nlisten = \":8080\"\ntoken = \"hush-hush\"":                        "transport.t.token: the token is sent in the clear",
		"type = \"http\"\nlisten = \"127.0.0.1:8080\"\ntoken = \"hush-hush\"":               "",
		"type = \"amqp\"\nreply_to = [\"replies.*\", \"*\"]":                                "transport.t.reply_to: anyone who may publish to this host can make it write results to any queue",
		"type = \"amqp\"\nreply_to = [\"replies.*\"]":                                       "",
		"type = \"http\"\nlisten = \"[::1%lo]:8080\"\ntoken = \"hush-hush\"":                "",
		"type = \"http\"\nlisten = \":8080\"":                                               "",
		"type = \"http\"\nlisten = \":8080\"\ntoken = \"x\"\ntls = {cert=\"c\", key=\"k\"}": "",
	} {
		warns(t, "[transport.t]\n"+text, want)
	}
}

// The configurations are of a handler, a store or a collector of traces.
func TestRisksOutsideOfTransports(t *testing.T) {
	const (
		hook    = "[transport.m]\ntype = \"memory\"\n[pipeline.p]\nfrom = \"m:in\"\nhandler = { type = \"http-request\", "
		table   = "[transport.m]\ntype = \"memory\"\n[pipeline.p]\nfrom = \"m:in\"\nhandler = \"h\"\n[pipeline.q]\nfrom = \"m:also\"\nhandler = \"h\"\n[handler.h]\ntype = \"sql\"\nmigrate = true\nurl = "
		store   = "[store]\ntype = \"postgres\"\nurl = "
		tracing = "[tracing]\nendpoint = "
	)
	for text, want := range map[string]string{
		hook + `url = "http://hooks.internal/x", headers = { Authorization = "Bearer hush-hush" } }`:                 "pipeline.p.handler.headers.Authorization: it is sent in the clear",
		hook + `url = "http://hooks.internal/x", headers = { X-Api-Key = "hush-hush" } }`:                            "pipeline.p.handler.headers.X-Api-Key: it is sent in the clear",
		hook + `url = "http://hooks.internal/x", headers = { cookie = "hush-hush" } }`:                               "pipeline.p.handler.headers.cookie: it is sent in the clear",
		hook + `url = "http://hooks.internal/x", forward = { Authorization = "header.X" } }`:                         "pipeline.p.handler.forward.Authorization: it is sent in the clear",
		hook + `url = "http://u:hush-hush@hooks.internal/x" }`:                                                       "pipeline.p.handler.url: its user part is sent in the clear",
		hook + `url = "http://10.0.0.7/x?access_token=hush-hush" }`:                                                  "pipeline.p.handler.url: its parameter access_token is sent in the clear",
		hook + `url = "https://hooks.internal/x", headers = { Authorization = "Bearer hush-hush" } }`:                "",
		hook + `url = "http://127.0.0.1/x", headers = { Authorization = "Bearer hush-hush" } }`:                      "",
		hook + `url = "http://[::1]:8080/x", headers = { Authorization = "Bearer hush-hush" } }`:                     "",
		hook + `url = "http://u:hush-hush@localhost/x" }`:                                                            "",
		hook + `url = "http://hooks.internal/x?page=2", headers = { X-Tenant = "a", Content-Type = "text/plain" } }`: "",
		hook + `url = "http://hooks.internal/x", forward = { Idempotency-Key = "header.X", X-Device = "device" } }`:  "",

		table + `"postgres://u:hush-hush@db.internal/x"`:                     "handler.h.url: the database's password and data may be sent in the clear",
		table + `"postgres://u:hush-hush@db.internal/x?sslmode=require"`:     "handler.h.url: the database's certificate isn't checked",
		table + `"postgres://u:hush-hush@db.internal/x?sslmode=verify-full"`: "",
		table + `"postgres://u:hush-hush@127.0.0.1/x"`:                       "",
		table + `"mysql://u:hush-hush@db.internal/x"`:                        "handler.h.url: the database's password and data may be sent in the clear",
		table + `"mysql://u:hush-hush@db.internal/x?tls=true"`:               "",
		table + `"sqlite:x.db"`:                                              "",

		store + `"postgres://u:hush-hush@db.internal/x?sslmode=disable"`:     "store.url: the database's password and data may be sent in the clear",
		store + `"postgres://u:hush-hush@db.internal/x?sslmode=verify-full"`: "",

		tracing + "\"http://otlp.internal:4318\"\nheaders = { authorization = \"hush-hush\" }":  "tracing.headers: the headers are sent in the clear, because the endpoint isn't https and isn't on a loopback address",
		tracing + "\"https://otlp.internal:4318\"\nheaders = { authorization = \"hush-hush\" }": "",
		tracing + "\"http://127.0.0.1:4318\"\nheaders = { authorization = \"hush-hush\" }":      "",
		tracing + "\"http://otlp.internal:4318\"":                                               "",
	} {
		warns(t, text, want)
	}
}

// warns parses a configuration and looks for one warning of a risk, which holds no secret.
func warns(t *testing.T, text, want string) {
	t.Helper()
	_, warnings, err := Parse("c.toml", []byte(text+"\n"), Options{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	got := warnings.String()
	risks := strings.Count(got, "in the clear") + strings.Count(got, "certificate isn't") + strings.Count(got, "anyone who may publish")
	if strings.Contains(got, "hush") || risks > 1 || (want != "") != (risks == 1) || !strings.Contains(got, want) {
		t.Errorf("%s\n warns: %s\n not: %s", text, got, want)
	}
}
