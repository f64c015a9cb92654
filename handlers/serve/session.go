package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/stdio"
)

const (
	// endGrace is how long runs may go on after the host has ended.
	endGrace = 5 * time.Second
)

// session is the connection of a plugin with its host.
//
// It begins with the host's hello, which the plugin answers with its own hello and then ready or
// refuse. After that the host sends requests. The session ends when the host sends drain and all
// runs have ended, or when standard input ends. In the second case the runs are cancelled.
type session struct {
	name   string
	set    *plugin.Set
	in     *stdio.Reader
	out    *stdio.Writer
	host   hostHello
	logger *slog.Logger
	// ending is called when the session ends.
	ending func()

	handler handlers.Handler
	// values is the parent of the contexts of all runs.
	values context.Context
	work   sync.WaitGroup // requests
	// hand passes requests to waiting workers. It is closed when all runs have ended.
	hand chan started
	// finish starts the closing of the handler. done is closed when the handler is closed.
	finish sync.Once
	done   chan struct{}

	mu      sync.Mutex
	over    bool // runs are cancelled
	running map[int64]*scope
}

func newSession(name string, set *plugin.Set, in io.Reader, out io.Writer) *session {
	s := &session{name: name, set: set, in: stdio.NewReader(in, stdio.StartMaxLine), out: stdio.NewWriter(out), logger: discard, ending: func() {}, running: map[int64]*scope{}, hand: make(chan started), done: make(chan struct{})}
	return s
}

// errRefused means that the plugin has refused, and that the host has the reason.
var errRefused = errors.New("refused")

// run runs the session. It returns an error if the host violates the protocol.
func (s *session) run(ctx context.Context) error {
	s.values = context.WithoutCancel(ctx)
	defer context.AfterFunc(ctx, s.cancelRuns)()
	defer s.cancelRuns()
	defer func() { _ = s.out.Flush() }() // an error means that the host has ended
	err := s.answerHello()
	switch {
	case errors.Is(err, errRefused), errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.readRequests() }()
	select {
	case err = <-ended:
		s.ending()
		s.cancelRuns()
		s.finish.Do(s.closeHandler)
		select {
		case <-s.done:
		case <-time.After(endGrace):
		}
		return err
	case <-s.done:
		// The goroutine of readRequests stays: only the host can end a read of standard input.
		s.ending()
		return s.out.WriteJSON(bare{"drained"})
	}
}

// cancelRuns cancels all runs, and those that begin later.
func (s *session) cancelRuns() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, run := range s.running {
		run.end()
	}
}

// closeHandler waits for all runs, closes the handler, and then closes done. It doesn't block.
func (s *session) closeHandler() {
	go func() {
		s.work.Wait()
		close(s.hand)
		if c, ok := s.handler.(io.Closer); ok {
			if err := c.Close(); err != nil {
				s.logger.Error("closing the handler", "err", err)
			}
		}
		close(s.done)
	}()
}

// readRequests reads and executes the lines of the host until standard input ends.
func (s *session) readRequests() error {
	draining := false
	for {
		l, err := s.nextLine()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		switch l.kind {
		case "request":
			if draining {
				return errors.New("a request after drain")
			}
			err = s.beginRequest(l)
		case "cancel":
			s.cancelRequest(l.id)
		case "ping":
			err = s.out.WriteLines(fmt.Appendf(nil, "{\"type\":\"pong\",\"id\":%d}\n", l.id))
		case "drain":
			draining = true
			s.finish.Do(s.closeHandler)
		case "hello":
			err = errors.New("a second hello")
		}
		if err != nil {
			return err
		}
	}
}

// nextLine returns the next line of a known kind. It returns io.EOF when the host has closed
// standard input.
func (s *session) nextLine() (line, error) {
	for {
		text, err := s.in.ReadLine()
		if err != nil {
			return line{}, err
		}
		if stdio.IsBlank(text) {
			continue
		}
		if l, err := parseLine(text); err != nil || l.kind != "" {
			return l, err
		}
	}
}

// answerHello reads and answers the host's hello, and builds the handler.
func (s *session) answerHello() error {
	first, err := s.nextLine()
	if err != nil {
		return err
	}
	if first.kind != "hello" {
		return fmt.Errorf("the first line is a %q, not the host's hello", first.kind)
	}
	s.host = first.hello
	if !slices.Contains(s.host.Versions, stdio.Version) {
		return s.refuse(fmt.Sprintf("this is %s, which speaks version %d of the protocol; the host speaks %s", s.name, stdio.Version, joinVersions(s.host.Versions)), nil)
	}
	info, ok := s.kind().Lookup(s.name)
	if !ok {
		return s.refuse(fmt.Sprintf("the program has no handler %q; its handlers: %s. Does it import the handler's package?", s.name, plugin.Names(s.kind().Names())), nil)
	}
	s.in.MaxLine = s.host.MaxLine
	s.logger = newLogger(s.logLine, s.host.level())
	schema := plugin.Schema{Set: s.set, Defs: plugin.Object{}}
	hello := pluginHello{Type: "hello", Version: stdio.Version, Name: s.name, PluginVersion: buildVersion(), Features: []string{"cancel", "drain"}, Schema: schema.Standalone(handlerKind, info.Name)}
	if err := s.out.WriteJSON(hello); err != nil {
		return err
	}
	d := plugin.Decoder{Set: s.set}
	config := d.Alone(handlerKind, s.name, s.host.config()).(handlers.Config)
	if len(d.Problems) > 0 {
		return s.refuse("", fromDecoder(d.Problems))
	}
	if err := checkNeeds(config, d.References); err != nil {
		return s.refuse(s.splitProblems(err))
	}
	if s.handler, err = s.build(config); err != nil {
		return s.refuse(s.splitProblems(errors.New(d.Redact(err.Error()))))
	}
	return s.out.WriteJSON(bare{"ready"})
}

func (s *session) kind() *plugin.Kind {
	k, _ := s.set.Kind(handlerKind)
	return k
}

const handlerKind = "handler"

func (s *session) refuse(text string, problems []problem) error {
	return errors.Join(s.out.WriteJSON(refusal{"refuse", text, problems}), errRefused)
}

// fromDecoder returns the problems of a decoder in the form of the protocol.
func fromDecoder(found []plugin.Problem) []problem {
	all := make([]problem, len(found))
	for i, p := range found {
		all[i] = problem{p.Path, p.Message}
	}
	return all
}

// splitProblems splits joined errors into those that belong to a key and the text of the others.
func (s *session) splitProblems(err error) (text string, found []problem) {
	errs := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		errs = joined.Unwrap()
	}
	var texts []string
	for _, e := range errs {
		if field, ok := errors.AsType[*plugin.FieldError](e); ok {
			found = append(found, problem{field.Field, field.Message})
		} else {
			texts = append(texts, e.Error())
		}
	}
	return strings.Join(texts, "; "), found
}

func joinVersions(versions []int) string {
	words := make([]string, len(versions))
	for i, v := range versions {
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, ", ")
}
