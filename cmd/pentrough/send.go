package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/transports/device"
)

// takes is how long a host or a broker may take to answer or to confirm, beside the wait for the result.
const takes = 10 * time.Second

// sending is one command on its way, by HTTP or through a broker.
type sending struct {
	url   string
	token string
	wait  time.Duration
	ttl   time.Duration
	reply bool
	hold  bool
	json  string

	amqp       string
	exchange   string
	routingKey string

	// id is the command's; the message carries it for a command that doesn't name it itself.
	id   string
	body []byte
	// named says that the JSON that was given names the id.
	named bool
}

func newSend() *cobra.Command {
	s := sending{}
	cmd := &cobra.Command{
		Use:   "send [DEVICE CMD]",
		Short: "Send a command to a device and print its result",
		Long: `Send a command to a device, by HTTP to a running host or through a broker, wait for its result and print it.

The exit code is 0 if the result's code is 2xx (sent, answered) or the command is held until the device is there, otherwise 1. With --wait 0 it is 0 once the command
was taken. What becomes of a command that is held goes where the pipeline's results go.`,
		Example: `  pentrough send 10.0.0.7 open
  pentrough send 10.0.0.7 open --id door-4711 --ttl 30s --wait 10s
  pentrough send 10.0.0.7 "get temperature" --reply
  pentrough send 10.0.0.7 "set 21" --hold --ttl 8h
  pentrough send --json '{"device":"10.0.0.7","cmd":"6f70656e","encoding":"hex"}'
  pentrough send 10.0.0.7 open --amqp amqp://127.0.0.1:5672/ --exchange device.commands
  PENTROUGH_AMQP_URL="$(cat /run/secrets/amqp)" pentrough send 10.0.0.7 open`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 2 {
				return advise(fmt.Errorf("what is %q? send takes a device and a command", args[2]), `quote a command of several words: pentrough send 10.0.0.7 "open 2"`)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.check(cmd.Flags().Changed("ttl")); err != nil {
				return err
			}
			if err := s.command(args, cmd.InOrStdin()); err != nil {
				return err
			}
			secrets := redact.SetOf(cmd.ErrOrStderr())
			secrets.Secret(s.token)
			secrets.URL(s.url)
			secrets.Secret(s.amqp)
			over, to := s.overHTTP, s.url
			if s.amqp != "" && !cmd.Flags().Changed("url") {
				over, to = s.overAMQP, s.amqp
			}
			warnExposed(cmd.ErrOrStderr(), to, s.token)
			result, err := over(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n", printable.JSON(bytes.TrimSpace(result)))
			return s.verdict(result)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.url, "url", "http://127.0.0.1:8080/commands", "where a running host takes commands by HTTP")
	f.StringVar(&s.token, "token", os.Getenv("PENTROUGH_TOKEN"), "bearer token of that address; ps shows it to every user of the machine,\nso better set PENTROUGH_TOKEN (default: $PENTROUGH_TOKEN)")
	f.Lookup("token").DefValue = ""
	f.DurationVar(&s.wait, "wait", 10*time.Second, "how long to wait for the result; 0 is not at all")
	f.StringVar(&s.id, "id", "", "id of the command; the same id again is the same command (default: a new UUID)")
	f.DurationVar(&s.ttl, "ttl", 0, "how long the command may wait for the device (default: without end)")
	f.BoolVar(&s.reply, "reply", false, "have the host wait for the device's answer")
	f.BoolVar(&s.hold, "hold", false, "have the host hold the command while the device is away")
	f.StringVar(&s.json, "json", "", "the whole command as JSON instead of DEVICE CMD; - reads standard input")
	f.StringVar(&s.amqp, "amqp", os.Getenv("PENTROUGH_AMQP_URL"), "send through the broker at this AMQP URL instead; ps shows it to every user of the machine,\nso better set PENTROUGH_AMQP_URL (default: $PENTROUGH_AMQP_URL)")
	f.Lookup("amqp").DefValue = ""
	f.StringVar(&s.exchange, "exchange", "device.commands", "exchange to publish to, with --amqp")
	f.StringVar(&s.routingKey, "routing-key", "", "routing key, with --amqp (default: the device)")
	cmd.MarkFlagsMutuallyExclusive("amqp", "url")
	cmd.MarkFlagsMutuallyExclusive("reply", "json")
	cmd.MarkFlagsMutuallyExclusive("hold", "json")
	return cmd
}

// check refuses times that can't be meant.
func (s *sending) check(expires bool) error {
	if expires && s.ttl <= 0 {
		return advise(fmt.Errorf("--ttl %s is not above 0", s.ttl), "leave it out for a command that may wait without end, or say how long: --ttl 30s")
	}
	if s.wait < 0 {
		return advise(fmt.Errorf("--wait %s is under 0", s.wait), "say how long to wait for the result: --wait 10s, or 0 for not at all")
	}
	return nil
}

// command makes the command's body, and gives it an id if it has none.
func (s *sending) command(args []string, stdin io.Reader) error {
	given := s.id
	if given == "" {
		s.id = uuid.NewString()
	}
	if s.json == "" {
		return s.compose(args)
	}
	if len(args) > 0 || s.ttl != 0 {
		return advise(errors.New("--json is the whole command"), "leave out DEVICE, CMD and --ttl, or leave out --json")
	}
	s.body = []byte(s.json)
	if s.json == "-" {
		var err error
		if s.body, err = io.ReadAll(stdin); err != nil {
			return fmt.Errorf("reading standard input: %w", err)
		}
	}
	// The host judges the body; here it is only asked whom it names.
	c, _ := device.ParseCommand(s.body, "")
	switch {
	case c.ID != "" && given != "":
		return advise(fmt.Errorf("the command of --json has an id already, %q", c.ID), "leave out --id, or take the id out of the command")
	case c.ID != "":
		s.id, s.named = c.ID, true
	}
	s.route(c.Device)
	return nil
}

// compose makes the body of DEVICE CMD. What no host would take isn't sent.
func (s *sending) compose(args []string) error {
	if len(args) != 2 {
		return advise(errors.New("send needs a device and a command"), `for example: pentrough send 10.0.0.7 "open 2"`)
	}
	for _, text := range []string{s.id, args[0], args[1]} {
		if !utf8.ValidString(text) {
			return advise(fmt.Errorf("%q is not UTF-8", text), `send other bytes as hex: pentrough send --json '{"device":"10.0.0.7","cmd":"ff00","encoding":"hex"}'`)
		}
	}
	c := device.Command{ID: s.id, Device: args[0], Payload: []byte(args[1]), TTL: s.ttl}
	if s.reply {
		c.Reply = device.Yes
	}
	if s.hold {
		c.Offline = device.Hold
	}
	s.body = c.AppendJSON(nil)
	if _, err := device.ParseCommand(s.body, ""); err != nil {
		return advise(fmt.Errorf("this is no command that a host takes: %w", err), "docs/messages.md says what a command may be")
	}
	s.route(args[0])
	return nil
}

// route makes the device the routing key, unless there is one.
func (s *sending) route(name string) {
	if s.routingKey == "" {
		s.routingKey = name
	}
}

// taken is the answer for a command that was taken and whose result isn't known.
func (s *sending) taken() []byte {
	answer, _ := json.Marshal(map[string]string{"id": s.id}) // a string always works
	return answer
}

// verdict turns an answer that isn't a success into an error.
func (s *sending) verdict(answer []byte) error {
	var r struct {
		State  string `json:"state"`
		Code   int    `json:"code"`
		Detail string `json:"detail"`
		Error  string `json:"error"`
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		return fmt.Errorf("reading the result: %w", err)
	}
	what := strings.TrimSpace(r.State + " " + r.Error)
	switch {
	case r.Code/100 == 2, r.State == string(device.StateHeld):
		return nil
	case what == "" && s.wait == 0:
		return nil
	case what == "":
		return advise(fmt.Errorf("command %s was taken, and no result came within %s", s.id, s.wait),
			"check that a host consumes the queue\n%s", s.again("it isn't run twice while dedup remembers it"))
	}
	if r.Detail != "" {
		what += " (" + r.Detail + ")"
	}
	return advise(fmt.Errorf("command %s: %s", s.id, what), "%s", s.next(r.State))
}

// next says what to do after a command that came to a state; it has none if it was refused.
func (s *sending) next(state string) string {
	switch state {
	case "":
		return "correct it; or if that says undecided or not taken, " + s.again("")
	case string(device.StateOffline):
		return "wait until the device is connected (pentrough listen devices:events) and send it again"
	case string(device.StateUnknownDevice):
		return "correct the device's name, or list it in the file of [inventory]"
	case string(device.StateRejected):
		return "correct the command; nothing was sent"
	case string(device.StateBusy):
		return "the device isn't reading; send it again later"
	case string(device.StateNoReply):
		return "ask the device what it did: it may have the command"
	case string(device.StateUnknown):
		return "ask the device what it did; its connection ended while the command was being written"
	default:
		return "docs/messages.md says what each state means"
	}
}

// again says how to repeat the same command.
func (s *sending) again(why string) string {
	text := "send it again with --id " + s.id
	if s.named {
		text = "send it again as it is"
	}
	if why != "" {
		text += ": " + why
	}
	return text
}
