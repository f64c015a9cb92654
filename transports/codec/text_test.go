package codec

import (
	"strings"
	"testing"
)

func TestParseBytes(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{"#", "#", ""},
		{`\x7e\xFF`, "~\xff", ""},
		{`\r\n\t\0\\`, "\r\n\t\x00\\", ""},
		{"\r\n", "\r\n", ""},
		{"é", "é", ""},
		{"", "", "at least one byte"},
		{`\x7`, "", "two hexadecimal digits"},
		{`\xzz`, "", "two hexadecimal digits"},
		{`\x+1`, "", "two hexadecimal digits"},
		{`\q`, "", `\q is not an escape`},
		{`a\`, "", `write \\`},
	} {
		got, err := ParseBytes(tt.in)
		if string(got) != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("ParseBytes(%q) = %q, %v; want %q, %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}
