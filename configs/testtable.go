package configs

import "time"

// Test is one [[test]] table.
type Test struct {
	Name  string     `toml:"name" required:"true" doc:"What the test shows." example:"\"a command reaches its device\""`
	Clock string     `toml:"clock" doc:"virtual: time passes only while the test waits, and costs none. real: as on the wall. Default: virtual, or real if a handler works through something outside the host, such as a process." enum:"virtual,real" example:"\"virtual\""`
	Steps []TestStep `toml:"steps" required:"true" doc:"What happens, in order." min:"1" example:"[{ input = { topic = \"broker:commands\", payload = \"x\" } }, { expect = { topic = \"broker:results\" } }]"`

	// Place is where the table stands.
	Place Place
}

// Place is where something stands in a file.
type Place struct {
	File string
	Position
}

// The clocks of tests.
const (
	VirtualClock = "virtual"
	RealClock    = "real"
)

// TestStep is one thing that happens; exactly one of its fields is set.
type TestStep struct {
	Input  *TestInput    `toml:"input" doc:"A message comes in."`
	Device *TestDevice   `toml:"device" doc:"A device connects, disconnects, says something, or changes what it answers."`
	Hook   *TestHook     `toml:"hook" doc:"What a server answers from now on that handlers call."`
	Wait   time.Duration `toml:"wait" doc:"Time passes." min:"0s" example:"\"10s\""`
	Expect *TestExpect   `toml:"expect" doc:"What must have come out."`

	Place Place
}

// TestInput is a message that comes in.
type TestInput struct {
	Topic    string `toml:"topic" doc:"The topic that it comes by; every pipeline that consumes it gets it." example:"\"broker:commands\""`
	Pipeline string `toml:"pipeline" doc:"Instead of topic: the one pipeline that gets it." example:"\"commands\""`

	JSON     map[string]any `toml:"json" doc:"Its payload as a JSON object."`
	Payload  string         `toml:"payload" doc:"Its payload as it is." example:"\"open\""`
	Encoding string         `toml:"encoding" doc:"How payload is written." enum:"text,hex,base64" example:"\"hex\""`
	Cmd      string         `toml:"cmd" doc:"Short for a command: json with id, device and cmd." example:"\"open\""`
	Device   string         `toml:"device" doc:"The device of cmd." example:"\"10.0.0.7\""`

	ID       string            `toml:"id" doc:"Its id, as of AMQP's message_id or HTTP's Idempotency-Key." example:"\"c-1\""`
	Metadata map[string]string `toml:"metadata" doc:"Its metadata: properties, and headers as header.NAME." example:"{ correlation_id = \"r-1\" }"`

	// HasPayload says that payload is given, if only as "".
	HasPayload bool
}

// TestDevice is what a device does.
type TestDevice struct {
	Name      string `toml:"name" required:"true" doc:"Whose device it is, as its transport knows it: an address, or the name that it gives." example:"\"10.0.0.7\""`
	Transport string `toml:"transport" doc:"The transport that it connects to, if several hold devices." example:"\"devices\""`
	Online    *bool  `toml:"online" doc:"true connects it, false disconnects it. Default: true for one that isn't connected." example:"false"`

	Answers  map[string]string `toml:"answers" doc:"What it answers from now on, by what it gets; * is anything else. Without one it is silent." example:"{ status = \"OK\" }"`
	Delay    time.Duration     `toml:"delay" doc:"How long it takes to answer." min:"0s" example:"\"2s\""`
	Says     []string          `toml:"says" doc:"What it sends now, each as a frame." example:"[\"T=21\"]"`
	Encoding string            `toml:"encoding" doc:"How answers and says are written." enum:"text,hex,base64" example:"\"hex\""`

	// HasAnswers says that answers are given, if only none.
	HasAnswers bool
}

// TestHook is what a server answers that handlers call.
type TestHook struct {
	URL  string `toml:"url" required:"true" doc:"Which one, without a query; * is any that no other step names." example:"\"https://hooks.example.com/orders\""`
	Away bool   `toml:"away" doc:"Nobody is there."`

	Status   int               `toml:"status" doc:"The status of its answer." min:"200" max:"599" example:"503"`
	Headers  map[string]string `toml:"headers" doc:"The headers of its answer." example:"{ Retry-After = \"30\" }"`
	JSON     map[string]any    `toml:"json" doc:"The body of its answer, as a JSON object."`
	Payload  string            `toml:"payload" doc:"The body of its answer as it is." example:"\"OK\""`
	Encoding string            `toml:"encoding" doc:"How payload is written." enum:"text,hex,base64" example:"\"hex\""`
	Delay    time.Duration     `toml:"delay" doc:"How long it takes to answer." min:"0s" example:"\"2s\""`
}

// TestExpect is what must have come out: the next message of a topic, the next frame that a device got, the next request that a server got, the reply to the
// latest input, or the next dead letter that was kept.
type TestExpect struct {
	Topic      string `toml:"topic" doc:"The next message on this topic." example:"\"broker:results\""`
	Device     string `toml:"device" doc:"The next frame that this device got." example:"\"10.0.0.7\""`
	Hook       string `toml:"hook" doc:"The next request to this URL, without a query; its headers, its method and its query are metadata." example:"\"https://hooks.example.com/orders\""`
	Reply      bool   `toml:"reply" doc:"What the sender of the latest input was told, as a caller by HTTP is."`
	DeadLetter bool   `toml:"dead_letter" doc:"The next dead letter that the handler store kept."`

	JSON     map[string]any    `toml:"json" doc:"Fields that its payload has, which may have others."`
	Payload  *string           `toml:"payload" doc:"Its whole payload." example:"\"open\""`
	Encoding string            `toml:"encoding" doc:"How payload is written." enum:"text,hex,base64" example:"\"hex\""`
	Metadata map[string]string `toml:"metadata" doc:"Metadata that it has, among others." example:"{ \"poison.kind\" = \"permanent\" }"`
	Matches  map[string]string `toml:"matches" doc:"Regular expressions for what isn't known exactly: by payload, error, metadata.KEY, or a field of the payload, as in json.detail." example:"{ \"json.detail\" = \"offline\" }"`
	Absent   []string          `toml:"absent" doc:"What it must not have: metadata.KEY, or a field of the payload, as in json.reply." example:"[\"json.reply\"]"`
	Code     int               `toml:"code" doc:"Of a reply: 200, 400 permanent, 500 retryable, 503 unavailable." min:"0" max:"599" example:"200"`

	Nothing  bool          `toml:"nothing" doc:"There is no next one."`
	Count    int           `toml:"count" doc:"So many follow each other that are as described." min:"1" max:"100000" example:"3"`
	Anywhere bool          `toml:"anywhere" doc:"Not the next one, but any that nothing expected yet, as the order between devices isn't known."`
	Within   time.Duration `toml:"within" doc:"How long it may take. Default: 1s of virtual time, or 10s of real time; with nothing it is how long nothing must come, 0s or 200ms." min:"0s" example:"\"5s\""`
}

// SetDefaults is of the decoder of configurations.
func (i *TestInput) SetDefaults() { i.Encoding = textEncoding }

// SetDefaults is of the decoder of configurations.
func (d *TestDevice) SetDefaults() { d.Encoding = textEncoding }

// SetDefaults is of the decoder of configurations.
func (h *TestHook) SetDefaults() { h.Encoding, h.Status = textEncoding, 200 }

// SetDefaults is of the decoder of configurations.
func (e *TestExpect) SetDefaults() { e.Encoding, e.Count = textEncoding, 1 }
