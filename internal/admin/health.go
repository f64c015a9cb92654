package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	nethttp "net/http"
	"runtime"
	"strings"

	"github.com/pentrough/pentrough/internal/printable"
)

// livez always answers 200.
func (s *Server) livez(w nethttp.ResponseWriter, _ *nethttp.Request) {
	writeResponse(w, nethttp.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
}

// readiness is the JSON of /readyz.
type readiness struct {
	Ready bool   `json:"ready"`
	Parts []part `json:"parts"`
}

type part struct {
	Name   string `json:"name"`
	Part   string `json:"part"`
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
	Note   string `json:"note,omitempty"`
}

// readyz answers 200 if all parts work, and otherwise 503. The body has a line for each part, with
// the reason if it doesn't work. Callers that accept JSON get JSON.
func (s *Server) readyz(w nethttp.ResponseWriter, r *nethttp.Request) {
	state := readiness{Ready: true, Parts: []part{}}
	for _, h := range s.config.Health() {
		p := part{Name: h.Name, Part: h.Part, OK: h.Err == nil, Note: h.Note}
		if h.Err != nil {
			p.Reason = s.redact(h.Err.Error())
			state.Ready = false
		}
		state.Parts = append(state.Parts, p)
	}
	status := nethttp.StatusOK
	if !state.Ready {
		status = nethttp.StatusServiceUnavailable
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		writeJSON(w, status, state)
		return
	}
	writeResponse(w, status, "text/plain; charset=utf-8", state.text())
}

func (s *Server) redact(text string) string {
	if s.config.Redact == nil {
		return text
	}
	return s.config.Redact(text)
}

func (r readiness) text() []byte {
	var b bytes.Buffer
	for _, p := range r.Parts {
		switch {
		case p.OK && p.Note != "":
			fmt.Fprintf(&b, "ok %s %s: %s\n", p.Name, p.Part, p.Note)
		case p.OK:
			fmt.Fprintf(&b, "ok %s %s\n", p.Name, p.Part)
		default:
			// Each part is one line, even if its reason has several.
			fmt.Fprintf(&b, "fail %s %s: %s\n", p.Name, p.Part, strings.ReplaceAll(p.Reason, "\n", "; "))
		}
	}
	return b.Bytes()
}

// version serves the versions of the program and of Go.
func (s *Server) version(w nethttp.ResponseWriter, _ *nethttp.Request) {
	writeJSON(w, nethttp.StatusOK, map[string]string{"version": s.config.Version, "go": runtime.Version()})
}

func writeJSON(w nethttp.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		nethttp.Error(w, err.Error(), nethttp.StatusInternalServerError)
		return
	}
	writeResponse(w, status, "application/json", append(body, '\n'))
}

func writeResponse(w nethttp.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(printable.JSON(body)) // an error means that the caller hung up
}
