package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/bubble"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
)

// Setup has the settings of tests.
type Setup struct {
	Config *configs.Config
	// Inventory returns the devices that the configuration lists. It is nil without an inventory.
	Inventory func(log *slog.Logger) (router.Inventory, error)
	// In runs code in a bubble.
	In bubble.In
	// Timeout is the longest real time that one test may take.
	Timeout time.Duration
	// Level is the lowest level that the host of a test logs.
	Level slog.Level
}

// Result is the outcome of a test.
type Result struct {
	Test *configs.Test
	// Failure is nil if it passed.
	Failure *Failure
	// Took is how long the test took in real time. Passed is the time that passed on its clock.
	Took, Passed time.Duration
	// Virtual is true if that clock is virtual.
	Virtual bool
	// Log is what the host logged.
	Log string
}

// Redact removes the secrets of the configuration from the result.
func (r *Result) Redact(text func(string) string) {
	r.Log = text(r.Log)
	if r.Failure != nil {
		r.Failure.Message = text(r.Failure.Message)
	}
}

// Failure is why a test failed.
type Failure struct {
	Place configs.Place
	// Step is the number of the step, from 1. It is 0 if the failure isn't in a step.
	Step int
	// Message has one or more lines.
	Message string
}

// Run runs one test. A test with a recording runs once for each way of replaying it.
func Run(t *configs.Test, s Setup) Result {
	if t.Replay != "" {
		return runReplay(t, s)
	}
	return newWorld(t, s).runIn()
}

func newWorld(t *configs.Test, s Setup) *world {
	return &world{test: t, setup: s, virtual: t.Clock == configs.VirtualClock || t.Clock == "" && s.outside() == ""}
}

// runIn runs the test with its clock.
func (w *world) runIn() Result {
	began := time.Now()
	t, s, in := w.test, w.setup, w.setup.In
	if !w.virtual {
		in = onTheWall
	}
	err := in(s.Timeout, w.run)
	p := w.progressed()
	result := Result{Test: t, Took: time.Since(began), Virtual: w.virtual, Passed: p.passed, Log: w.log.String()}
	switch {
	case err == nil || p.over:
		// Activity after the last step, such as a goroutine that a plugin left running, isn't a
		// mistake of the configuration.
		result.Failure = p.failure
	case errors.Is(err, bubble.ErrStuck) && w.virtual:
		result.Failure = failAt(t, p.step, fmt.Sprintf("%v\nsomething waits for a connection, a process or something else outside the test; set clock = %q for such a test", err, configs.RealClock))
	default:
		result.Failure = failAt(t, p.step, err.Error())
	}
	return result
}

// outside returns what a handler of the configuration uses outside the host, or "".
func (s *Setup) outside() string {
	for _, p := range s.Config.Router.Pipelines {
		if o, ok := p.Handler.Config.(handlers.Outsider); ok && o.Outside() != "" {
			return o.Outside()
		}
	}
	return ""
}

// onTheWall is a bubble.In with real time.
func onTheWall(patience time.Duration, f func()) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f()
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-timer.C:
		return fmt.Errorf("the test didn't end within %s", patience)
	}
}

// failAt returns a failure in a step, counted from 1, or outside of the steps if step is 0.
func failAt(t *configs.Test, step int, message string) *Failure {
	place := t.Place
	if step > 0 {
		place = t.Steps[step-1].Place
	}
	return &Failure{Place: place, Step: step, Message: message}
}

// world has everything that belongs to one test.
type world struct {
	test    *configs.Test
	setup   Setup
	virtual bool
	began   time.Time // when the steps began, on the test's clock
	log     buffer

	record  *record
	topics  map[string]*topics
	holders map[string]*holder
	hooks   *hooks
	host    *router.Host
	reply   *reply  // of the latest input
	player  *player // nil if the test replays no recording
	next    int     // the index of the next step

	mu       sync.Mutex
	progress progress
}

// reply is the outcome of an input, from the first pipeline that settles it.
type reply struct {
	once    sync.Once
	done    chan struct{}
	outcome *transports.Outcome // set when done is closed
}

func (r *reply) settle(o *transports.Outcome) {
	r.once.Do(func() {
		r.outcome = o
		close(r.done)
	})
}

// progress says how far a test is.
type progress struct {
	// step counts from 1; passed is the time at its beginning.
	step   int
	passed time.Duration
	// over is true after the last step. failure is the outcome of the steps.
	over    bool
	failure *Failure
}

func (w *world) progressed() progress {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.progress
}

func (w *world) advance(p progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.progress = p
}

// buffer is a text buffer with a lock.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// stopping is how long a test's host may take to stop, in virtual time. stoppingReal is the same
// in real time.
const (
	stopping     = 30 * time.Second
	stoppingReal = 2 * time.Second
)

// run builds a host, carries out the steps and stops the host.
func (w *world) run() {
	began := time.Now()
	log := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: w.setup.Level}))
	w.record = newRecord()
	ends, err := w.build(log)
	defer ends()
	if err != nil {
		w.advance(progress{over: true, failure: failAt(w.test, 0, "building the host: "+err.Error())})
		return
	}
	tapping, untap := context.WithCancel(context.Background())
	var taps sync.WaitGroup
	defer taps.Wait()
	defer untap()
	failure := w.begin(tapping, &taps)
	if failure == nil {
		failure = w.steps(began)
	}
	w.advance(progress{over: true, failure: failure, passed: time.Since(began)})
	patience := stopping
	if !w.virtual {
		patience = stoppingReal
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// The stop's error isn't used: messages that are still unsettled are no failure of the test.
	_ = w.host.Stop(ctx)
}

// begin starts the host after the taps on its topics.
func (w *world) begin(ctx context.Context, taps *sync.WaitGroup) *Failure {
	err := w.tap(ctx, taps)
	if err == nil && w.player != nil {
		err = w.player.begin(w)
	}
	if err == nil {
		err = w.host.Start(ctx)
	}
	if err != nil {
		return failAt(w.test, 0, err.Error())
	}
	return nil
}

// named returns the subjects that the test's expectations name.
func (w *world) named() []subject {
	var all []subject
	for _, step := range w.test.Steps {
		if step.Expect == nil || step.Expect.Reply {
			continue
		}
		if s := (expectation{step.Expect}).subject(); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

func (e expectation) subject() subject {
	switch {
	case e.Device != "":
		return deviceSubject(e.Device)
	case e.Hook != "":
		return hookSubject(address(e.Hook))
	case e.DeadLetter:
		return letterSubject
	default:
		return topicSubject(e.Topic)
	}
}

// steps carries out the steps. At the end it reports what came out of the named subjects although
// no step expected it.
func (w *world) steps(began time.Time) *Failure {
	w.began = began
	w.settle()
	if w.player != nil {
		if failure := w.player.play(); failure != nil {
			return failure
		}
	}
	for w.next < len(w.test.Steps) {
		if failure := w.step(); failure != nil {
			return failure
		}
	}
	w.settle()
	var problems []string
	for _, s := range w.named() {
		if left := w.record.left(s); len(left) > 0 {
			problems = append(problems, fmt.Sprintf("%s has more than the steps expect:", s))
			problems = append(problems, list(left)...)
		}
	}
	if len(problems) > 0 {
		return failAt(w.test, 0, strings.Join(problems, "\n"))
	}
	return nil
}

// step carries out the next step.
func (w *world) step() *Failure {
	w.next++
	w.advance(progress{step: w.next, passed: time.Since(w.began)})
	if err := w.do(&w.test.Steps[w.next-1]); err != nil {
		return failAt(w.test, w.next, err.Error())
	}
	return nil
}

// settle waits until everything has happened for which no time has to pass. With a real clock it
// does nothing.
func (w *world) settle() {
	if w.virtual {
		bubble.Wait()
	}
}

func (w *world) do(s *configs.TestStep) error {
	var err error
	switch {
	case s.Input != nil:
		err = w.input(s.Input)
	case s.Device != nil:
		h := w.holders[s.Device.Transport]
		if h == nil {
			return fmt.Errorf("transport %s has no devices that a test can play", s.Device.Transport)
		}
		err = h.act(s.Device)
	case s.Hook != nil:
		w.hooks.set(s.Hook)
	case s.Expect != nil:
		return w.expect(expectation{s.Expect})
	default:
		time.Sleep(s.Wait)
	}
	w.settle()
	return err
}

// input sends a message into the host.
func (w *world) input(in *configs.TestInput) error {
	payload, err := payloadOf(in)
	if err != nil {
		return err
	}
	ref := transports.TopicRef(in.Topic)
	if in.Pipeline != "" {
		i := slices.IndexFunc(w.setup.Config.Router.Pipelines, func(p router.Pipeline) bool { return p.Name == in.Pipeline })
		ref = w.setup.Config.Router.Pipelines[i].From
	}
	name, topic, err := ref.Split()
	if err != nil {
		return err
	}
	t := w.topics[name]
	if t == nil {
		return fmt.Errorf("a test can't send a message to %s", ref)
	}
	msg := handlers.NewMessage(payload)
	delete(msg.Metadata, transports.MessageID)
	for key, value := range in.Metadata {
		msg.Metadata[key] = value
	}
	if in.ID != "" && in.Cmd == "" {
		msg.Metadata[transports.MessageID] = in.ID
	}
	w.reply = &reply{done: make(chan struct{})}
	t.put(topic, in.Pipeline, msg, w.reply.settle)
	return nil
}

func payloadOf(i *configs.TestInput) ([]byte, error) {
	switch {
	case i.Cmd != "":
		command := map[string]any{"device": i.Device, "cmd": i.Cmd}
		if i.ID != "" {
			command["id"] = i.ID
		}
		return []byte(jsonText(command)), nil
	case i.JSON != nil:
		return []byte(jsonText(i.JSON)), nil
	default:
		return configs.DecodePayload(i.Encoding, i.Payload)
	}
}
