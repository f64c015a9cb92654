package configs

import (
	"strings"
	"testing"

	_ "github.com/pentrough/pentrough/handlers/httprequest"
	_ "github.com/pentrough/pentrough/transports/amqp"
	_ "github.com/pentrough/pentrough/transports/http"
	_ "github.com/pentrough/pentrough/transports/memory"
)

func TestWhatIsSentInTheClearIsWarnedOf(t *testing.T) {
	for text, want := range map[string]string{
		"type = \"memory\"\n[pipeline.p]\nfrom = \"t:x\"\nhandler = { type = \"http-request\", url = \"http://10.0.0.7/\", headers = { A = \"hush-hush\" } }":  "pipeline.p.handler.url: the headers are sent in the clear",
		"type = \"memory\"\n[pipeline.p]\nfrom = \"t:x\"\nhandler = { type = \"http-request\", url = \"https://10.0.0.7/\", headers = { A = \"hush-hush\" } }": "",
		"type = \"memory\"\n[pipeline.p]\nfrom = \"t:x\"\nhandler = { type = \"http-request\", url = \"http://10.0.0.7/\" }":                                   "",
		"type = \"memory\"\n[tracing]\nendpoint = \"${ENDPOINT}\"\nheaders = { authorization = \"hush-hush\" }":                                                "tracing.endpoint: the headers are sent in the clear",
		"type = \"memory\"\n[tracing]\nendpoint = \"http://127.0.0.1:4318\"\nheaders = { authorization = \"hush-hush\" }":                                      "",
		"type = \"amqp\"\nurl = \"amqp://u:hush-hush@broker.internal/\"":                                                                                       "transport.t.url: password and messages are sent in the clear",
		"type = \"amqp\"\nhost = \"10.0.0.7\"":                                              "transport.t.host: password and messages are sent in the clear",
		"type = \"amqp\"\nurl = \"amqps://u:hush-hush@broker.internal/\"":                   "",
		"type = \"amqp\"\nhost = \"10.0.0.7\"\ntls = {}":                                    "",
		"type = \"amqp\"\nurl = \"amqp://u:hush-hush@[::1]/\"":                              "",
		"type = \"amqp\"\nhost = \"localhost\"":                                             "",
		"type = \"amqp\"\nhost = \"10.0.0.7\"\ntls = { insecure = true }":                   "transport.t.tls.insecure: the server's certificate isn't checked",
		"type = \"http\"\nlisten = \":8080\"\ntoken = \"hush-hush\"":                        "transport.t.token: the token is sent in the clear",
		"type = \"http\"\nlisten = \"127.0.0.1:8080\"\ntoken = \"hush-hush\"":               "",
		"type = \"http\"\nlisten = \":8080\"":                                               "",
		"type = \"http\"\nlisten = \":8080\"\ntoken = \"x\"\ntls = {cert=\"c\", key=\"k\"}": "",
	} {
		_, warnings, err := Parse("c.toml", []byte("[transport.t]\n"+text+"\n"), Options{LookupEnv: func(string) (string, bool) { return "http://collector.internal:4318", true }})
		if err != nil {
			t.Fatal(err)
		}
		got := warnings.String()
		if strings.Contains(got, "hush") || want != "" && !strings.Contains(got, want) || want == "" && (strings.Contains(got, "in the clear") || strings.Contains(got, "certificate")) {
			t.Errorf("%s\n warns: %s\n not: %s", text, got, want)
		}
	}
}
