package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// maxAnswer is the longest answer that the command reads, in bytes.
const maxAnswer = 16 << 20

// overHTTP posts the command. The host waits for the result before it answers.
func (s *sending) overHTTP(ctx context.Context) ([]byte, error) {
	target, err := webAddress(s.url)
	if err != nil {
		return nil, advise(fmt.Errorf("reading --url: %w", err), "give the address of an http topic, such as http://127.0.0.1:8080/commands")
	}
	if s.wait > 0 {
		q := target.Query()
		q.Set("wait", s.wait.String())
		target.RawQuery = q.Encode()
	}
	ctx, cancel := context.WithTimeout(ctx, s.wait+answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(s.body))
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", s.id)
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return nil, advise(err, "check that a host runs there (pentrough run), or name its address with --url")
	}
	if err != nil {
		return nil, advise(fmt.Errorf("command %s is undecided: %w", s.id, err), "%s", s.repeatAdvice(""))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, advise(fmt.Errorf("command %s is undecided: reading the answer of %s: %w", s.id, s.url, err), "%s", s.repeatAdvice(""))
	}
	if !json.Valid(answer) {
		return nil, advise(fmt.Errorf("%s answered %s: %s", s.url, resp.Status, firstLine(answer)), "check that --url names an http topic of a running host")
	}
	return answer, nil
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return string(line[:min(len(line), 200)])
}
