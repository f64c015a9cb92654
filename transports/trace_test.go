package transports_test

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

func TestTraceID(t *testing.T) {
	const id = "0af7651916cd43dd8448eb211c80319c"
	for parent, want := range map[string]string{
		"00-" + id + "-b7ad6b7169203331-01":                        "0af7651916cd43dd8448eb211c80319c",
		"00-" + id + "-b7ad6b7169203331-00":                        id,
		"cc-" + id + "-b7ad6b7169203331-01-later":                  id,
		"ff-" + id + "-b7ad6b7169203331-01":                        "",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01":  "",
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01":  "",
		"00-0af7651916cd43dd8448eb211c80319\n-b7ad6b7169203331-01": "",
		"00_" + id + "-b7ad6b7169203331-01":                        "",
		"00-" + id + "_b7ad6b7169203331-01":                        "",
		"00-" + id + "-b7ad6b7169203331_01":                        "",
		"00-" + id + "-b7ad6b7169203331-0":                         "",
		"":                                                         "",
	} {
		m := message.Metadata{transports.TraceParent: parent}
		if got := transports.TraceID(m); got != want {
			t.Errorf("%q: %q, want %q", parent, got, want)
		}
		var out bytes.Buffer
		transports.Traced(slog.New(slog.NewTextHandler(&out, nil)), m).Info("x")
		if has := bytes.Contains(out.Bytes(), []byte(" trace="+id)); has != (want != "") {
			t.Errorf("%q: logged %s", parent, out.Bytes())
		}
	}
}
