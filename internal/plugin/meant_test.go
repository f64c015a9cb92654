package plugin

import (
	"testing"
	"time"
)

type meantConfig struct {
	Listen  string        `toml:"listen" doc:"An address." example:"\":8123\""`
	Name    string        `toml:"name" doc:"A name."`
	Secret  string        `toml:"secret" doc:"A secret." secret:"true"`
	Word    string        `toml:"word" doc:"One of some." enum:"a,b"`
	Wait    time.Duration `toml:"wait" doc:"A duration."`
	Size    int           `toml:"size" doc:"A size." unit:"bytes"`
	Count   int           `toml:"count" doc:"A count." unit:"messages"`
	Share   float64       `toml:"share" doc:"A share."`
	On      bool          `toml:"on" doc:"A switch."`
	Another []bool        `toml:"another" doc:"Switches."`
}

// A suggested value fits the field. A secret is never suggested.
func TestMeant(t *testing.T) {
	const none = ""
	for _, c := range []struct {
		key  string
		v    any
		want string
	}{
		{"listen", int64(8150), `":8150"`}, {"listen", int64(70000), `"70000"`}, {"listen", []any{":1"}, `":1"`}, {"listen", []any{":1", ":2"}, none},
		{"name", int64(7), `"7"`}, {"name", 1.5, `"1.5"`}, {"name", true, `"true"`}, {"name", map[string]any{}, none},
		{"secret", int64(1234), none}, {"secret", []any{"hunter2"}, none}, {"word", int64(1), none},
		{"wait", "5 minutes", `"5m"`}, {"wait", "5 s", `"5s"`}, {"wait", int64(5), `"5s"`}, {"wait", 1.5, `"1.5s"`}, {"wait", "90", `"1m30s"`}, {"wait", "1 day", `"24h"`},
		{"wait", "1 hour and 30 minutes", `"1h30m"`}, {"wait", "2h, 5min", `"2h5m"`}, {"wait", "1,5h", `"1h30m"`}, {"wait", "5M", `"5m"`}, {"wait", "a while", none},
		{"wait", "5 6", none}, {"wait", "", none}, {"wait", "99999999999999 weeks", none}, {"wait", true, none},
		{"size", "10MB", "10000000"}, {"size", "10 MiB", "10485760"}, {"size", "64k", "65536"}, {"size", "1.5kB", "1500"}, {"size", "100 bytes", "100"}, {"size", "1.5", none},
		{"size", "4096", "4096"}, {"size", "4,096", "4096"}, {"size", 10.0, "10"}, {"size", 1.5, none}, {"size", "5 messages", none}, {"size", "9999999999 GB", none},
		{"count", "5", "5"}, {"count", "5 messages", "5"}, {"count", "5k", none}, {"count", true, none},
		{"share", "0.5", "0.5"}, {"share", "0,5", "0.5"}, {"share", "50%", "0.5"}, {"share", "NaN", none}, {"share", "half", none},
		{"on", "yes", "true"}, {"on", "Off", "false"}, {"on", int64(1), "true"}, {"on", int64(2), none}, {"on", "maybe", none}, {"another", "no", "false"},
	} {
		d := Decoder{Set: new(Set)}
		d.Table("", map[string]any{c.key: c.v}, &meantConfig{})
		if len(d.Problems) != 1 {
			t.Fatalf("%s = %v: %v", c.key, c.v, d.Problems)
		}
		got := d.Problems[0].Message
		want := "; did you mean " + c.want + "?"
		if has := len(got) > len(want) && got[len(got)-len(want):] == want; c.want != none && !has || c.want == none && got[len(got)-1] == '?' {
			t.Errorf("%s = %v: %s\nshould suggest %s", c.key, c.v, got, c.want)
		}
	}
}
