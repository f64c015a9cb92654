// Package packet is the codec for binary and text protocols whose frames have a start, a length,
// an end, a check or escapes.
//
//	framing = { type = "packet", kinds = [
//	  { starts = '\x78\x78', length = { size = 1, add = 5 }, check = { type = "crc16-x25" }, ends = '\r\n' },
//	  { starts = '\x79\x79', length = { size = 2, add = 6 }, check = { type = "crc16-x25" }, ends = '\r\n' },
//	] }
//
// A frame consists of the following parts. Each kind of frame has some of them:
//
//	start | length | payload | check | end
//
// To read a frame, Split chooses the kind by the start, measures the frame, compares the end,
// removes the escapes and verifies the check, in this order. Append does the reverse. Then Append
// measures the frame as a reader would. It refuses the payload if a reader would find another
// frame.
package packet

import "github.com/pentrough/pentrough/transports/codec"

// Config is the packet codec's configuration.
type Config struct {
	Kinds  []Kind `toml:"kinds" doc:"The kinds of frames, in order. A frame belongs to the first kind whose starts are the first bytes of the frame." required:"true" example:"[{ starts = \"(\", ends = \")\" }]"`
	Resync bool   `toml:"resync" doc:"What happens if no kind has the start of a frame, if the length is impossible, or if the end isn't where it should be. true: the codec skips bytes up to the next start. false: the device is disconnected."`
	Max    int    `toml:"max" doc:"The largest frame in either direction, with all its parts." unit:"bytes" min:"1" max:"16777216" example:"4096"`
}

// Kind is one kind of frames.
type Kind struct {
	Name   string            `toml:"name" doc:"The name of the kind, for the rules of a protocol. Several kinds may have the same name." example:"\"ping\""`
	Only   string            `toml:"only" doc:"in: devices send such frames, and the host doesn't. out: only the host sends them. Default: both." enum:"in,out"`
	Starts string            `toml:"starts" doc:"The bytes at the start of a frame. In addition to TOML's own escapes, \\xNN stands for any byte, and \\r, \\n, \\t, \\0 and \\\\ have their usual meanings. Default: a frame may start with any bytes." example:"'\\x78\\x78'"`
	Size   *int              `toml:"size" doc:"The size of every frame, with all its parts." unit:"bytes" min:"1" max:"16777216" example:"17"`
	Length *Length           `toml:"length" doc:"Where a frame has its length, or how the length is computed."`
	Ends   string            `toml:"ends" doc:"The bytes at the end of a frame, written like starts. Without size and length, a frame ends where these bytes occur first." example:"'\\r\\n'"`
	Escape map[string]string `toml:"escape" doc:"The bytes that are escaped between start and end. Each key is one byte, and its value is the two bytes that replace it, both written like starts. All pairs of bytes begin with the same byte, which is escaped, too. A kind with escape needs ends, and can't have size or length." example:"{ '\\x7e' = '\\x7d\\x02', '\\x7d' = '\\x7d\\x01' }"`
	Check  *Check            `toml:"check" doc:"The checksum of a frame, which is before the end."`
}

// Length is a length field, or an expression for the length.
type Length struct {
	At     *int   `toml:"at" doc:"The byte of the frame at which the length begins, counted from 0. If it directly follows the start, it isn't a part of the payload. Default: after the start." unit:"bytes" min:"0" max:"65535" example:"2"`
	Size   *int   `toml:"size" doc:"The size of the length: up to 4 bytes, or 8 digits." min:"1" max:"8" example:"2"`
	Add    int    `toml:"add" doc:"The size of a frame minus the number in its length." unit:"bytes" min:"-65535" max:"65535" example:"5"`
	Little bool   `toml:"little" doc:"Whether the length has its lowest byte first."`
	Mask   *int   `toml:"mask" doc:"The bits that are the length. The others are ignored, and are 0 in frames that the host sends. Default: all." min:"1" max:"4294967295" example:"0x7fff"`
	ASCII  bool   `toml:"ascii" doc:"Whether the length is a decimal number as text."`
	Expr   string `toml:"expr" doc:"An expression for the size of a frame, instead of a length field. u8(i), u16(i), u32(i), u64(i), u16le(i) and u32le(i) are numbers of the frame." example:"'u8(1) > 0x80 ? 5 : 5 + u8(2)'"`
}

// Check is a checksum.
type Check struct {
	Type   string `toml:"type" doc:"How the check is computed." required:"true" enum:"xor,sum8,crc16-x25,crc16-ibm,crc16-modbus,crc16-kermit,crc16-xmodem,crc16-ccitt-false,crc16-hj212,crc32" example:"\"crc16-modbus\""`
	Size   *int   `toml:"size" doc:"The size of the check in bytes, or in digits of a text. If it is larger than the size of the type, zeros fill the rest. Default: the size of the type." min:"1" max:"8" example:"4"`
	Little bool   `toml:"little" doc:"Whether the check has its lowest byte first."`
	From   *int   `toml:"from" doc:"The byte of the frame at which the checked bytes begin, counted from 0. They end before the check. Default: after the start." unit:"bytes" min:"0" max:"65535" example:"2"`
	ASCII  bool   `toml:"ascii" doc:"Whether the check is a hexadecimal number as text. The host sends capital letters, and reads both."`
	Wrong  string `toml:"wrong" doc:"What happens if a device sends a wrong check. close: it is disconnected. drop: the frame is skipped. accept: the frame is used." enum:"close,drop,accept"`
}

// SetDefaults sets the defaults for the decoder of configurations.
func (c *Check) SetDefaults() { c.Wrong = wrongClose }

// The values of Only and Wrong.
const (
	onlyIn      = "in"
	onlyOut     = "out"
	wrongClose  = "close"
	wrongDrop   = "drop"
	wrongAccept = "accept"
)

var defaults = Config{Max: 4096}

func init() {
	codec.Register(codec.Plugin{
		Name:        "packet",
		Summary:     "Binary and text frames with a start, a length, an end, a checksum or escapes.",
		Description: description,
		Config: func() codec.Config {
			c := defaults
			return &c
		},
	})
}

const description = "A frame has some of the following parts, in this order: start, length, payload, check, end. " +
	"Each kind of frame says which parts it has. This is the framing of GT06 trackers, which send " +
	"short and long frames:\n\n" +
	"```toml\n" +
	"framing = { type = \"packet\", kinds = [\n" +
	"  { starts = '\\x78\\x78', length = { size = 1, add = 5 }, check = { type = \"crc16-x25\" }, ends = '\\r\\n' },\n" +
	"  { starts = '\\x79\\x79', length = { size = 2, add = 6 }, check = { type = \"crc16-x25\" }, ends = '\\r\\n' },\n" +
	"] }\n" +
	"```\n\n" +
	"A Modbus device behind a modem sends frames without a start. The function code says how long " +
	"an answer is. The modem itself sends its name and signs of life. Commands may have any size:\n\n" +
	"```toml\n" +
	"[codec.modbus]\n" +
	"type  = \"packet\"\n" +
	"kinds = [\n" +
	"  { name = \"hello\", only = \"in\", starts = \"REG\", size = 9 },\n" +
	"  { name = \"ping\", only = \"in\", starts = \"ping\", size = 4 },\n" +
	"  { name = \"rtu\", only = \"in\", length = { expr = 'u8(1) > 0x80 ? 5 : u8(1) < 5 ? 5 + u8(2) : 8' }, check = { type = \"crc16-modbus\", little = true } },\n" +
	"  { only = \"out\", check = { type = \"crc16-modbus\", little = true } },\n" +
	"]\n" +
	"```\n\n" +
	"**The size of a frame** is fixed (`size`), or is the number in its `length` plus `add`, or is " +
	"computed by an expression (`length.expr`). Without them, a frame ends where the bytes `ends` " +
	"occur first. The functions `u8(i)`, `u16(i)`, `u32(i)`, `u64(i)`, `u16le(i)` and `u32le(i)` of an " +
	"expression read a number at byte `i` of the frame. An expression may also contain integers, " +
	"`+`, `-`, `*`, `%`, `bitand`, `bitor`, `bitxor`, `bitshl`, `bitshr`, comparisons, `in [1, 2]`, " +
	"`and`, `or`, `not` and `a < b ? c : d`.\n\n" +
	"**The payload** is the frame without start, check, end and escapes. A length that directly " +
	"follows the start isn't a part of the payload either. If the length is further inside, the " +
	"payload contains it, and a command must contain the right length.\n\n" +
	"**Commands:** the host adds the parts of a kind to the payload. If the host may send " +
	"several kinds, each of them needs a length after its start. The host uses the first kind " +
	"whose length field can store the length of the frame. It rejects a command if a device would " +
	"read another payload from the frame."
