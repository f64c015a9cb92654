package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/pentrough/pentrough/internal/admin"
	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/transports"
)

// maxLine is the longest line that the command reads from a tap, in bytes.
const maxLine = 64 << 20

// hostStream is a stream of lines from the admin listener of a running host.
type hostStream struct {
	*bufio.Scanner
	body io.Closer
}

func (s *hostStream) Close() { _ = s.body.Close() }

// openStream asks the admin listener for a stream. act says what the caller does, for errors, and
// refused what to do if the host refuses it.
func openStream(ctx context.Context, log io.Writer, address, path string, query url.Values, act, refused string) (*hostStream, error) {
	target, err := adminAddress(address)
	if err != nil {
		return nil, err
	}
	warnExposed(log, address, "")
	target = target.JoinPath(path)
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, advise(err, "check that a host runs there (pentrough run), or name its [host] admin address with --admin")
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLine)
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		lines.Scan()
		return nil, advise(fmt.Errorf("%s: %s", act, reasonIn(lines.Bytes(), resp.Status)), "%s", refused)
	}
	return &hostStream{lines, resp.Body}, nil
}

// tapHost taps a topic of a running host.
func (l *listening) tapHost(ctx context.Context, out, log io.Writer, ref transports.TopicRef) error {
	lines, err := openStream(ctx, log, l.admin, "api/v1/tap", url.Values{"topic": {string(ref)}}, "listening to "+string(ref),
		"pentrough validate -c FILE shows the topics of a configuration's pipelines; -c FILE taps a broker without a host")
	if err != nil {
		return err
	}
	defer lines.Close()
	announce(log, ref, "")
	p := printer{out: out, json: l.json, left: l.count}
	for lines.Scan() {
		if done, err := p.printLine(lines.Bytes()); done || err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("listening to %s: %w", ref, err)
	}
	return advise(fmt.Errorf("listening to %s: the host ended the tap", ref), "try again when the host runs; a host with too many taps ends the one that has been idle longest")
}

// announce tells the user that the tap has begun.
func announce(log io.Writer, ref transports.TopicRef, warning string) {
	if warning != "" {
		fmt.Fprintf(log, "warning: %s\n", warning)
	}
	fmt.Fprintf(log, "listening to %s\n", ref)
}

// reasonIn returns the reason that the admin listener gives in its answer, otherwise the HTTP
// status.
func reasonIn(body []byte, status string) string {
	var said struct{ Error string }
	if json.Unmarshal(body, &said) == nil && said.Error != "" {
		return said.Error
	}
	return status
}

// printer prints messages, one line each.
type printer struct {
	out  io.Writer
	json bool
	// left is the number of messages still to print; 0 means no limit.
	left int
}

// printLine prints a message that was received as JSON. It returns done after the last message.
func (p *printer) printLine(line []byte) (done bool, err error) {
	text := string(printable.JSON(line))
	if !p.json {
		var t admin.Tapped
		if err := json.Unmarshal(line, &t); err != nil {
			return false, fmt.Errorf("reading a message: %w", err)
		}
		if t.Payload != nil {
			text = oneLine([]byte(*t.Payload))
		} else {
			text = oneLine(t.PayloadBase64)
		}
	}
	if _, err := fmt.Fprintf(p.out, "%s\n", text); err != nil {
		return false, err
	}
	p.left--
	return p.left == 0, nil
}

// oneLine returns a payload as one line. JSON is compacted. Other text stays as it is, but
// characters that would break the line or the terminal are escaped.
func oneLine(payload []byte) string {
	var b bytes.Buffer
	if utf8.Valid(payload) && json.Compact(&b, payload) == nil {
		return printable.Lines(b.String())
	}
	return printable.Text(string(payload))
}
