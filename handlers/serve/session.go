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
	// patience is how long what runs may go on when nobody waits for it any more.
	patience = 5 * time.Second
)

// session is the life of a plugin with its host.
type session struct {
	name   string
	set    *plugin.Set
	in     *stdio.Reader
	out    *stdio.Writer
	host   hostHello
	logger *slog.Logger
	// ending is called when the host has enough.
	ending func()

	handler handlers.Handler
	// values are what all that runs finds in its context.
	values context.Context
	work   sync.WaitGroup // requests
	// hand hands requests to workers that wait for one. It is closed when all has ended.
	hand chan started
	// finish begins with the end of the handler, done is closed when that is over.
	finish sync.Once
	done   chan struct{}

	mu      sync.Mutex
	over    bool // nobody waits for what runs
	running map[int64]*scope
}

func newSession(name string, set *plugin.Set, in io.Reader, out io.Writer) *session {
	s := &session{name: name, set: set, in: stdio.NewReader(in, stdio.StartMaxLine), out: stdio.NewWriter(out), logger: discard, ending: func() {}, running: map[int64]*scope{}, hand: make(chan started), done: make(chan struct{})}
	return s
}

// errRefused says that the host was told why there is no plugin.
var errRefused = errors.New("refused")

// run is the session from the host's hello to its end. An error says what the host did that is none of the protocol.
func (s *session) run(ctx context.Context) error {
	s.values = context.WithoutCancel(ctx)
	defer context.AfterFunc(ctx, s.end)()
	defer s.end()
	defer func() { _ = s.out.Flush() }() // that there is no host to read it is no news here
	err := s.greet()
	switch {
	case errors.Is(err, errRefused), errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.serve() }()
	select {
	case err = <-ended:
		s.ending()
		s.end()
		s.finish.Do(s.finished)
		select {
		case <-s.done:
		case <-time.After(patience):
		}
		return err
	case <-s.done:
		// Whoever reads is left behind: nothing ends a read of standard input but the host.
		s.ending()
		return s.out.Line(bare{"drained"})
	}
}

// end tells all that runs that nobody waits for it any more.
func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, run := range s.running {
		run.end()
	}
}

// finished closes the handler when all that ran has ended, and then done.
func (s *session) finished() {
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

// serve does what the host asks for, until its lines end.
func (s *session) serve() error {
	draining := false
	for {
		l, err := s.next()
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
			err = s.request(l)
		case "cancel":
			s.cancel(l.id)
		case "ping":
			err = s.out.Put(fmt.Appendf(nil, "{\"type\":\"pong\",\"id\":%d}\n", l.id))
		case "drain":
			draining = true
			s.finish.Do(s.finished)
		case "hello":
			err = errors.New("a second hello")
		}
		if err != nil {
			return err
		}
	}
}

// next returns the next line of a known kind. io.EOF is that nobody is there any more.
func (s *session) next() (line, error) {
	for {
		text, err := s.in.Text()
		if err != nil {
			return line{}, err
		}
		if stdio.Blank(text) {
			continue
		}
		if l, err := parse(text); err != nil || l.kind != "" {
			return l, err
		}
	}
}

// greet answers the host's hello, and builds the handler.
func (s *session) greet() error {
	first, err := s.next()
	if err != nil {
		return err
	}
	if first.kind != "hello" {
		return fmt.Errorf("a %q comes first, where the host's hello was waited for", first.kind)
	}
	s.host = first.hello
	if !slices.Contains(s.host.Versions, stdio.Version) {
		return s.refuse(fmt.Sprintf("this is %s, which speaks version %d of the protocol; the host speaks %s", s.name, stdio.Version, list(s.host.Versions)), nil)
	}
	info, ok := s.kind().Lookup(s.name)
	if !ok {
		return s.refuse(fmt.Sprintf("the program has no handler %q but %s: does it import the package that registers it?", s.name, plugin.Names(s.kind().Names())), nil)
	}
	s.in.Most = s.host.MaxLine
	s.logger = newLogger(s.logLine, s.host.level())
	schema := plugin.Schema{Set: s.set, Defs: plugin.Object{}}
	hello := pluginHello{Type: "hello", Version: stdio.Version, Name: s.name, PluginVersion: buildVersion(), Features: []string{"cancel", "drain"}, Schema: schema.Standalone(handlerKind, info.Name)}
	if err := s.out.Line(hello); err != nil {
		return err
	}
	d := plugin.Decoder{Set: s.set}
	config := d.Alone(handlerKind, s.name, s.host.config()).(handlers.Config)
	if len(d.Problems) > 0 {
		return s.refuse("", problems(d.Problems))
	}
	if err := needs(config, d.References); err != nil {
		return s.refuse(s.complaints(err))
	}
	if s.handler, err = s.build(config); err != nil {
		return s.refuse(s.complaints(errors.New(d.Redact(err.Error()))))
	}
	return s.out.Line(bare{"ready"})
}

func (s *session) kind() *plugin.Kind {
	k, _ := s.set.Kind(handlerKind)
	return k
}

const handlerKind = "handler"

func (s *session) refuse(text string, problems []problem) error {
	return errors.Join(s.out.Line(refusal{"refuse", text, problems}), errRefused)
}

// problems are those of a decoder, as the protocol tells them.
func problems(found []plugin.Problem) []problem {
	all := make([]problem, len(found))
	for i, p := range found {
		all[i] = problem{p.Path, p.Message}
	}
	return all
}

// complaints sorts errors by whether they belong to a key.
func (s *session) complaints(err error) (text string, found []problem) {
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

func list(versions []int) string {
	words := make([]string, len(versions))
	for i, v := range versions {
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, ", ")
}
