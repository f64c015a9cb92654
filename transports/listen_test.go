package transports

import "testing"

func TestCheckListen(t *testing.T) {
	const allowed = "; allowed: HOST:PORT, or :PORT for every address of the machine"
	for addr, want := range map[string]string{
		":8150": "", "127.0.0.1:0": "", "[::1]:80": "", "localhost:http": "",
		"8150":                  `"8150" is no address to listen on` + allowed + `; did you mean ":8150"?`,
		"http://127.0.0.1:8080": `"http://127.0.0.1:8080" is no address to listen on` + allowed + `; did you mean "127.0.0.1:8080"?`,
		"127.0.0.1":             `"127.0.0.1" is no address to listen on: it has no port, such as "127.0.0.1:8123"` + allowed,
		"localhost:":            `"localhost:" is no address to listen on: it has no port, such as "localhost:8123"` + allowed,
		"::1":                   `"::1" is no address to listen on: an IPv6 address needs brackets` + allowed,
		"":                      `"" is no address to listen on` + allowed,
	} {
		got := ""
		if err := CheckListen(addr); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s\nnot %s", addr, got, want)
		}
	}
}
