package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
)

// sending is one command on its way, by HTTP or through a broker.
type sending struct {
	url   string
	token string
	wait  time.Duration
	id    string
	ttl   time.Duration
	body  string

	amqp       string
	exchange   string
	routingKey string
}

func newSend() *cobra.Command {
	s := sending{}
	cmd := &cobra.Command{
		Use:   "send [DEVICE CMD]",
		Short: "Send a command to a device and print its result",
		Long: `Send a command to a device, by HTTP to a running host or through a broker, wait for its result and print it.

The exit code is 0 if the result's code is 2xx (sent, answered), otherwise 1.`,
		Example: `  pentrough send 10.0.0.7 open
  pentrough send 10.0.0.7 open --id door-4711 --ttl 30s --wait 10s
  pentrough send --json '{"device":"10.0.0.7","cmd":"6f70656e","encoding":"hex"}'
  pentrough send 10.0.0.7 open --amqp amqp://guest:guest@127.0.0.1:5672/ --exchange device.commands`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, body, err := s.command(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			var result []byte
			if s.amqp != "" {
				result, err = s.overAMQP(cmd.Context(), id, body)
			} else {
				result, err = s.overHTTP(cmd.Context(), body)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n", bytes.TrimSpace(result))
			return s.verdict(result, cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.url, "url", "http://127.0.0.1:8080/commands", "where a running host takes commands by HTTP")
	f.StringVar(&s.token, "token", os.Getenv("PENTROUGH_TOKEN"), "bearer token of that address (default: $PENTROUGH_TOKEN)")
	f.Lookup("token").DefValue = ""
	f.DurationVar(&s.wait, "wait", 10*time.Second, "how long to wait for the result")
	f.StringVar(&s.id, "id", "", "id of the command; the same id again is the same command (default: a new UUID)")
	f.DurationVar(&s.ttl, "ttl", 0, "how long the command may wait for the device (default: without end)")
	f.StringVar(&s.body, "json", "", "the whole command as JSON instead of DEVICE CMD; - reads standard input")
	f.StringVar(&s.amqp, "amqp", "", "send through the broker at this AMQP URL instead")
	f.StringVar(&s.exchange, "exchange", "device.commands", "exchange to publish to, with --amqp")
	f.StringVar(&s.routingKey, "routing-key", "", "routing key, with --amqp (default: the device)")
	cmd.MarkFlagsMutuallyExclusive("amqp", "url")
	return cmd
}

// command returns the command's id and JSON.
func (s *sending) command(args []string, stdin io.Reader) (id string, body []byte, err error) {
	if s.body != "" {
		if len(args) > 0 || s.id != "" || s.ttl != 0 {
			return "", nil, advise(errors.New("--json is the whole command"), "leave out DEVICE, CMD, --id and --ttl, or leave out --json")
		}
		body = []byte(s.body)
		if s.body == "-" {
			if body, err = io.ReadAll(stdin); err != nil {
				return "", nil, fmt.Errorf("reading standard input: %w", err)
			}
		}
		// The host judges the body; the broker is only told an id and a device if it has them.
		var named struct{ ID, Device, Address string }
		if json.Unmarshal(body, &named) == nil && s.routingKey == "" {
			s.routingKey = named.Device + named.Address
		}
		return named.ID, body, nil
	}
	if len(args) != 2 {
		return "", nil, advise(errors.New("send needs a device and a command"), `for example: pentrough send 10.0.0.7 "open 2"`)
	}
	command := map[string]any{"id": s.id, "device": args[0], "cmd": args[1]}
	if s.id == "" {
		command["id"] = uuid.NewString()
	}
	if s.ttl > 0 {
		command["ttl"] = s.ttl.String()
	}
	if s.routingKey == "" {
		s.routingKey = args[0]
	}
	body, err = json.Marshal(command)
	return command["id"].(string), body, err
}

func (s *sending) overHTTP(ctx context.Context, body []byte) ([]byte, error) {
	target, err := url.Parse(s.url)
	if err != nil {
		return nil, advise(fmt.Errorf("reading --url: %w", err), "give the address of a http topic, such as http://127.0.0.1:8080/commands")
	}
	if s.wait > 0 {
		q := target.Query()
		q.Set("wait", s.wait.String())
		target.RawQuery = q.Encode()
	}
	// The host keeps the wait; this deadline is for a host that doesn't answer at all.
	ctx, cancel := context.WithTimeout(ctx, s.wait+10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, advise(err, "give the address of a http topic, such as http://127.0.0.1:8080/commands")
	}
	req.Header.Set("Content-Type", "application/json")
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, advise(err, "check that a host runs there (pentrough run), or name its address with --url")
	}
	defer resp.Body.Close()
	result, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", s.url, err)
	}
	if !json.Valid(result) {
		return nil, advise(fmt.Errorf("%s answered %s: %s", s.url, resp.Status, firstLine(result)), "check that --url names a http topic of a running host")
	}
	return result, nil
}

// verdict turns a result that isn't a success into an error.
func (s *sending) verdict(result []byte, note io.Writer) error {
	var r struct {
		ID     string `json:"id"`
		State  string `json:"state"`
		Code   int    `json:"code"`
		Detail string `json:"detail"`
		Error  string `json:"error"`
	}
	if err := json.Unmarshal(result, &r); err != nil {
		return fmt.Errorf("reading the result: %w", err)
	}
	switch {
	case r.Code/100 == 2:
		return nil
	case r.State == "" && r.Error == "":
		fmt.Fprintf(note, "command %s is with the broker; no result came within %s\n", r.ID, s.wait)
		return nil
	}
	next := "docs/messages.md says what each state means"
	switch r.State {
	case "":
		next = "correct it, or if it says undecided or busy send it again with the same --id"
	case "offline":
		next = "wait until the device is connected (pentrough listen devices:events) and send it again"
	case "rejected":
		next = "correct the command; nothing was sent"
	case "busy":
		next = "the device isn't reading; send it again later"
	case "unknown":
		next = "ask the device what it did; its connection ended while the command was being written"
	}
	what := strings.TrimSpace(r.State + " " + r.Error)
	if r.Detail != "" {
		what += " (" + r.Detail + ")"
	}
	return advise(fmt.Errorf("command %s: %s", r.ID, what), "%s", next)
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return string(line[:min(len(line), 200)])
}
