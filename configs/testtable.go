package configs

import "time"

// Test is one [[test]] table.
type Test struct {
	Name  string     `toml:"name" required:"true" doc:"The name of the test: what it shows." example:"\"a command reaches its device\""`
	Clock string     `toml:"clock" doc:"The clock of the test. virtual: time passes only in steps that wait, and costs no real time. real: the clock of the machine. Default: virtual, or real if a handler uses something outside the host, such as a process." enum:"virtual,real" example:"\"virtual\""`
	Steps []TestStep `toml:"steps" doc:"The steps of the test, in order. A test without replay needs at least one." example:"[{ input = { topic = \"broker:commands\", payload = \"x\" } }, { expect = { topic = \"broker:results\" } }]"`

	Replay     string `toml:"replay" doc:"A recording of pentrough record, relative to the working directory. A device sends what it sent in the recording: as recorded, byte by byte, and joined into as few pieces as possible. The host must send what it sent in the recording, and the data must be the same each time." example:"\"bug.jsonl\""`
	IgnoreHost bool   `toml:"ignore_host" doc:"Whether what the host sends may differ from the recording." example:"true"`

	// Place is the place of the table in the file.
	Place Place
}

// Place is a place in a file.
type Place struct {
	File string
	Position
}

// The clocks of tests.
const (
	VirtualClock = "virtual"
	RealClock    = "real"
)

// TestStep is one step of a test. Exactly one of its fields is set.
type TestStep struct {
	Input  *TestInput    `toml:"input" doc:"A message comes in."`
	Device *TestDevice   `toml:"device" doc:"A device connects, disconnects, sends frames, or gets new answers."`
	Hook   *TestHook     `toml:"hook" doc:"A server that handlers call: what it answers from now on."`
	Wait   time.Duration `toml:"wait" doc:"Time passes." min:"0s" example:"\"10s\""`
	Expect *TestExpect   `toml:"expect" doc:"A message, frame, request or reply that must have come out."`

	Place Place
}

// TestInput is a message that comes in.
type TestInput struct {
	Topic    string `toml:"topic" doc:"The topic of the message. Every pipeline that consumes the topic gets it." example:"\"broker:commands\""`
	Pipeline string `toml:"pipeline" doc:"Instead of topic: the only pipeline that gets the message." example:"\"commands\""`

	JSON     map[string]any `toml:"json" doc:"The payload as a JSON object."`
	Payload  string         `toml:"payload" doc:"The payload as text." example:"\"open\""`
	Encoding string         `toml:"encoding" doc:"The encoding of payload." enum:"text,hex,base64" example:"\"hex\""`
	Cmd      string         `toml:"cmd" doc:"A short form for a command: it sets json with id, device and cmd." example:"\"open\""`
	Device   string         `toml:"device" doc:"The device of cmd." example:"\"10.0.0.7\""`

	ID       string            `toml:"id" doc:"The id of the message, like message_id of AMQP or Idempotency-Key of HTTP." example:"\"c-1\""`
	Metadata map[string]string `toml:"metadata" doc:"The metadata: properties, and headers as header.NAME." example:"{ correlation_id = \"r-1\" }"`

	// HasPayload is true if payload is given, even as "".
	HasPayload bool
}

// TestDevice is what a device does.
type TestDevice struct {
	Name      string `toml:"name" required:"true" doc:"The name of the device in its transport: its address, or the name in its first frame." example:"\"10.0.0.7\""`
	Transport string `toml:"transport" doc:"The transport that the device connects to, if several have devices." example:"\"devices\""`
	Online    *bool  `toml:"online" doc:"true connects the device, false disconnects it. Default: true if it isn't connected." example:"false"`

	Answers  map[string]string `toml:"answers" doc:"The answers of the device from now on, by the frame that it gets; * stands for every other frame. Without an answer the device is silent." example:"{ status = \"OK\" }"`
	Delay    time.Duration     `toml:"delay" doc:"How long the device takes to answer." min:"0s" example:"\"2s\""`
	Says     []string          `toml:"says" doc:"Frames that the device sends now." example:"[\"T=21\"]"`
	Encoding string            `toml:"encoding" doc:"The encoding of answers and says." enum:"text,hex,base64" example:"\"hex\""`

	// HasAnswers is true if answers is given, even if it is empty.
	HasAnswers bool
}

// TestHook is the answer of a server that handlers call.
type TestHook struct {
	URL  string `toml:"url" required:"true" doc:"The URL of the server, without a query; * stands for every URL that no other step names." example:"\"https://hooks.example.com/orders\""`
	Away bool   `toml:"away" doc:"The server doesn't run."`

	Status   int               `toml:"status" doc:"The status of the answer." min:"200" max:"599" example:"503"`
	Headers  map[string]string `toml:"headers" doc:"The headers of the answer." example:"{ Retry-After = \"30\" }"`
	JSON     map[string]any    `toml:"json" doc:"The body of the answer as a JSON object."`
	Payload  string            `toml:"payload" doc:"The body of the answer as text." example:"\"OK\""`
	Encoding string            `toml:"encoding" doc:"The encoding of payload." enum:"text,hex,base64" example:"\"hex\""`
	Delay    time.Duration     `toml:"delay" doc:"How long the server takes to answer." min:"0s" example:"\"2s\""`
}

// TestExpect describes what must have come out: the next message on a topic, the next frame to a
// device, the next request to a server, the reply to the latest input, or the next dead letter.
type TestExpect struct {
	Topic      string `toml:"topic" doc:"The next message on this topic." example:"\"broker:results\""`
	Device     string `toml:"device" doc:"The next frame that this device got." example:"\"10.0.0.7\""`
	Hook       string `toml:"hook" doc:"The next request to this URL, without a query. Its headers, method and query are its metadata." example:"\"https://hooks.example.com/orders\""`
	Reply      bool   `toml:"reply" doc:"The reply to the latest input, as a caller by HTTP gets it."`
	DeadLetter bool   `toml:"dead_letter" doc:"The next dead letter that the handler store kept."`

	JSON     map[string]any    `toml:"json" doc:"Fields that the payload must have. The payload may have other fields."`
	Payload  *string           `toml:"payload" doc:"The whole payload." example:"\"open\""`
	Encoding string            `toml:"encoding" doc:"The encoding of payload." enum:"text,hex,base64" example:"\"hex\""`
	Metadata map[string]string `toml:"metadata" doc:"Metadata that must be there. Other metadata may be there too." example:"{ \"poison.kind\" = \"permanent\" }"`
	Matches  map[string]string `toml:"matches" doc:"Regular expressions that must match. The key of each says what it must match: payload, error, metadata.KEY, or a field of the payload, such as json.detail." example:"{ \"json.detail\" = \"offline\" }"`
	Absent   []string          `toml:"absent" doc:"What must be missing: metadata.KEY, or a field of the payload, such as json.reply." example:"[\"json.reply\"]"`
	Code     int               `toml:"code" doc:"The code of a reply: 200, 400 permanent, 500 retryable, 503 unavailable." min:"0" max:"599" example:"200"`

	Nothing  bool          `toml:"nothing" doc:"Nothing more may have come out."`
	Count    int           `toml:"count" doc:"How many messages, frames or requests must match, one after the other." min:"1" max:"100000" example:"3"`
	Anywhere bool          `toml:"anywhere" doc:"Accept everything that no step has expected yet, not only what came out next. Use it where the order isn't known, such as between devices."`
	Within   time.Duration `toml:"within" doc:"How long the step waits for what it expects. Default: 1s of virtual time, or 10s of real time. With nothing: for how long nothing may come out. Default: 0s, or 200ms of real time." min:"0s" example:"\"5s\""`
}

// SetDefaults sets the defaults for the decoder of configurations.
func (i *TestInput) SetDefaults() { i.Encoding = textEncoding }

// SetDefaults sets the defaults for the decoder of configurations.
func (d *TestDevice) SetDefaults() { d.Encoding = textEncoding }

// SetDefaults sets the defaults for the decoder of configurations.
func (h *TestHook) SetDefaults() { h.Encoding, h.Status = textEncoding, 200 }

// SetDefaults sets the defaults for the decoder of configurations.
func (e *TestExpect) SetDefaults() { e.Encoding, e.Count = textEncoding, 1 }
