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

// answerTimeout is how long a host or a broker may take to answer or to confirm. The wait for the
// result is extra.
const answerTimeout = 10 * time.Second

// sending is one call of the verb send: a command that goes to a host by HTTP or through a broker.
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

	// id is the id of the command. The message carries it if the body doesn't name one.
	id   string
	body []byte
	// named is true if the JSON of --json names the id.
	named bool
}

func newSend() *cobra.Command {
	s := sending{}
	cmd := &cobra.Command{
		Use:   "send [DEVICE CMD]",
		Short: "Send a command to a device and print its result",
		Long: `Send a command to a device, wait for its result and print it. The command goes to a running host by
HTTP, or through a broker.

The exit code is 0 if the code of the result is 2xx (sent, answered) or if the host holds the
command until its device connects. Otherwise it is 1. With --wait 0 it is 0 as soon as the host or
the broker has taken the command. The later result of a held command goes to the destination of the
pipeline, not to this program.`,
		Example: `  pentrough send 10.0.0.7 open
  pentrough send 10.0.0.7 open --id door-4711 --ttl 30s --wait 10s
  pentrough send 10.0.0.7 "get temperature" --reply
  pentrough send 10.0.0.7 "set 21" --hold --ttl 8h
  pentrough send --json '{"device":"10.0.0.7","cmd":"6f70656e","encoding":"hex"}'
  pentrough send 10.0.0.7 open --amqp amqp://127.0.0.1:5672/ --exchange device.commands
  PENTROUGH_AMQP_URL="$(cat /run/secrets/amqp)" pentrough send 10.0.0.7 open`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 2 {
				return advise(fmt.Errorf("unexpected argument %q: send takes a device and a command", args[2]), `quote a command of several words: pentrough send 10.0.0.7 "open 2"`)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.checkTimes(cmd.Flags().Changed("ttl")); err != nil {
				return err
			}
			if err := s.makeBody(args, cmd.InOrStdin()); err != nil {
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
			return s.checkResult(result)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.url, "url", "http://127.0.0.1:8080/commands", "the URL at which a running host takes commands")
	f.StringVar(&s.token, "token", os.Getenv("PENTROUGH_TOKEN"), "bearer token for --url (default: $PENTROUGH_TOKEN); prefer the variable,\nas every user of the machine can see the flag in the list of processes")
	f.Lookup("token").DefValue = ""
	f.DurationVar(&s.wait, "wait", 10*time.Second, "how long to wait for the result; 0 doesn't wait")
	f.StringVar(&s.id, "id", "", "id of the command; a second command with the same id is a duplicate (default: a new UUID)")
	f.DurationVar(&s.ttl, "ttl", 0, "how long the command may wait for the device (default: no limit)")
	f.BoolVar(&s.reply, "reply", false, "wait for the device's answer and print it")
	f.BoolVar(&s.hold, "hold", false, "if the device is offline, let the host hold the command until it connects")
	f.StringVar(&s.json, "json", "", "the whole command as JSON, instead of DEVICE and CMD; - reads standard input")
	f.StringVar(&s.amqp, "amqp", os.Getenv("PENTROUGH_AMQP_URL"), "send through the broker at this AMQP URL (default: $PENTROUGH_AMQP_URL); prefer the variable,\nas every user of the machine can see the flag in the list of processes")
	f.Lookup("amqp").DefValue = ""
	f.StringVar(&s.exchange, "exchange", "device.commands", "with --amqp: the exchange to publish to")
	f.StringVar(&s.routingKey, "routing-key", "", "with --amqp: the routing key (default: the device)")
	cmd.MarkFlagsMutuallyExclusive("amqp", "url")
	cmd.MarkFlagsMutuallyExclusive("reply", "json")
	cmd.MarkFlagsMutuallyExclusive("hold", "json")
	return cmd
}

// checkTimes refuses impossible values of --ttl and --wait.
func (s *sending) checkTimes(expires bool) error {
	if expires && s.ttl <= 0 {
		return advise(fmt.Errorf("--ttl %s is not above 0", s.ttl), "leave it out for a command that may wait without limit, or give a limit: --ttl 30s")
	}
	if s.wait < 0 {
		return advise(fmt.Errorf("--wait %s is under 0", s.wait), "say how long to wait for the result: --wait 10s; 0 doesn't wait")
	}
	return nil
}

// makeBody makes the command's body. It creates an id if the user gave none.
func (s *sending) makeBody(args []string, stdin io.Reader) error {
	given := s.id
	if given == "" {
		s.id = uuid.NewString()
	}
	if s.json == "" {
		return s.composeBody(args)
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
	// The host checks the body. Here only the device and the id are needed.
	c, _ := device.ParseCommand(s.body, "")
	switch {
	case c.ID != "" && given != "":
		return advise(fmt.Errorf("the command of --json already has the id %q", c.ID), "leave out --id, or remove the id from the command")
	case c.ID != "":
		s.id, s.named = c.ID, true
	}
	s.setRoutingKey(c.Device)
	return nil
}

// composeBody makes the body from DEVICE and CMD. It refuses a command that no host would take.
func (s *sending) composeBody(args []string) error {
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
		return advise(fmt.Errorf("no host would take this command: %w", err), "docs/messages.md describes commands")
	}
	s.setRoutingKey(args[0])
	return nil
}

// setRoutingKey uses the device as the routing key if the user named none.
func (s *sending) setRoutingKey(name string) {
	if s.routingKey == "" {
		s.routingKey = name
	}
}

// accepted returns what to print for a command that was taken and whose result isn't known.
func (s *sending) accepted() []byte {
	answer, _ := json.Marshal(map[string]string{"id": s.id}) // a string can always be encoded
	return answer
}

// checkResult returns an error if the result isn't a success.
func (s *sending) checkResult(answer []byte) error {
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
		return advise(fmt.Errorf("command %s was taken, but no result came within %s", s.id, s.wait),
			"check that a host consumes the queue\n%s", s.repeatAdvice("it runs only once while dedup remembers the id"))
	}
	if r.Detail != "" {
		what += " (" + r.Detail + ")"
	}
	return advise(fmt.Errorf("command %s: %s", s.id, what), "%s", s.nextStep(r.State))
}

// nextStep says what to do about a command with this result state. The state is empty if the host
// refused the command.
func (s *sending) nextStep(state string) string {
	switch state {
	case "":
		return "correct it; but if the error says undecided or not taken, " + s.repeatAdvice("")
	case string(device.StateOffline):
		return "wait until the device is connected (pentrough listen devices:events) and send it again"
	case string(device.StateUnknownDevice):
		return "correct the device's name, or list it in the file of [inventory]"
	case string(device.StateRejected):
		return "correct the command; nothing was written to the device"
	case string(device.StateBusy):
		return "the device doesn't read from its connection; send the command again later"
	case string(device.StateNoReply):
		return "find out from the device what it did: it may have received the command"
	case string(device.StateUnknown):
		return "find out from the device what it did: the connection ended while the host was writing the command"
	default:
		return "docs/messages.md explains each state"
	}
}

// repeatAdvice says how to send the same command again.
func (s *sending) repeatAdvice(why string) string {
	text := "send it again with --id " + s.id
	if s.named {
		text = "send it again unchanged"
	}
	if why != "" {
		text += ": " + why
	}
	return text
}
