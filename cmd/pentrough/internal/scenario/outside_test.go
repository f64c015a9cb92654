package scenario_test

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/cmd/pentrough/internal/scenario"
	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/bubble"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

func init() {
	handlers.Register(handlers.Plugin{Name: "pipe", Summary: "Reads from a pipe.", Config: func() handlers.Config { return &pipeConfig{} }})
}

// pipeConfig is of a handler that reads from a pipe all the time, as one with a process does.
type pipeConfig struct {
	Outsider bool `toml:"outsider" doc:"It says so."`
}

// pipes are those that handlers read from.
var pipes = make(chan *pipe, 10)

type pipe struct {
	r, w  *os.File
	ended chan struct{}
}

func (c *pipeConfig) Outside() string {
	if c.Outsider {
		return "a pipe"
	}
	return ""
}

func (c *pipeConfig) New(handlers.Env) (handlers.Handler, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p := &pipe{r: r, w: w, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_, _ = io.ReadAll(r)
	}()
	pipes <- p
	return p, nil
}

func (p *pipe) Handle(msg *message.Message) ([]*message.Message, error) {
	return []*message.Message{handlers.Forward(msg)}, nil
}

func (p *pipe) Close() error {
	_ = p.w.Close() // the test may have closed it
	<-p.ended
	return p.r.Close()
}

// TestWhatIsOutsideHasNoVirtualTime: a handler that says so has its tests on the wall's clock, one
// that doesn't is found out.
func TestWhatIsOutsideHasNoVirtualTime(t *testing.T) {
	for _, c := range []struct {
		name, handler, clock string
		virtual              bool
	}{
		{"it says so", `{ type = "pipe", outsider = true }`, "", false},
		{"the test says so", `"pipe"`, "real", false},
		{"nobody says so", `"pipe"`, "", true},
		{"the test says something else", `{ type = "pipe", outsider = true }`, "virtual", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "transport.memory = {}\npipeline.a = { from = 'memory:a', to = 'memory:b', handler = " + c.handler + " }\n[[test]]\nname = 'a'\n"
			if c.clock != "" {
				text += "clock = '" + c.clock + "'\n"
			}
			text += "steps = [{ input = { topic = 'memory:a', payload = 'x' } }, { expect = { topic = 'memory:b', payload = 'x' } }]"
			config, _, err := configs.Parse("c.toml", []byte(text), configs.Options{})
			if err != nil {
				t.Fatal(err)
			}
			setup := scenario.Setup{Config: config, Timeout: await.Patience, Level: slog.LevelWarn}
			ended := make(chan struct{})
			if c.virtual {
				setup.Timeout = 100 * time.Millisecond
				setup.In = func(patience time.Duration, f func()) error {
					return bubble.Under(t)(patience, func() { defer close(ended); f() })
				}
			}
			r := scenario.Run(&config.Tests[0], setup)
			p := <-pipes
			if r.Virtual != c.virtual {
				t.Errorf("its clock is virtual: %v", r.Virtual)
			}
			switch {
			case !c.virtual && r.Failure != nil:
				t.Errorf("%s\n%s", r.Failure.Message, r.Log)
			case c.virtual && (r.Failure == nil || !strings.Contains(r.Failure.Message, `virtual time stands still`) || !strings.Contains(r.Failure.Message, `clock = "real"`)):
				t.Errorf("it ended with %+v", r.Failure)
			}
			// What was left alone ends when the pipe does.
			_ = p.w.Close()
			if c.virtual {
				<-ended
			}
		})
	}
}
