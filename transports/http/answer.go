package http

import (
	"encoding/json"
	"errors"
	nethttp "net/http"
	"slices"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// The types of messages with the result of a command or the report of a group.
const (
	typeResult = "result"
	typeGroup  = "group"
)

// retryAfter is the Retry-After of a 503, in seconds.
const retryAfter = 1

// answer is a response to a request.
type answer struct {
	status          int
	contentType     string
	contentEncoding string
	body            []byte
}

// note is the body of an answer that doesn't return a message.
type note struct {
	ID    string `json:"id,omitempty"`
	Error string `json:"error,omitempty"`
}

func noteAnswer(status int, n note) *answer {
	body, _ := json.Marshal(n) // marshaling two strings can't fail
	return &answer{status: status, contentType: "application/json", body: append(body, '\n')}
}

func acceptedAnswer(id string) *answer { return noteAnswer(nethttp.StatusAccepted, note{ID: id}) }

func refusalAnswer(status int, id, reason string) *answer {
	return noteAnswer(status, note{ID: id, Error: reason})
}

// The reasons why a message isn't taken.
const (
	stopping      = "the host is stopping"
	noPipeline    = "no pipeline consumes this path now"
	tooManyBefore = "too many messages wait before this one"
	noRoom        = "other requests use up the memory budget"
	hungUp        = "the caller closed its side of the connection"
)

// notTaken refuses a message that no pipeline got. The answer has the id only if the caller gave
// it. The caller couldn't use a generated id.
func notTaken(given, reason string) *answer {
	return refusalAnswer(nethttp.StatusServiceUnavailable, given, "not taken: "+reason)
}

func undecidedAnswer(id string) *answer {
	return refusalAnswer(nethttp.StatusServiceUnavailable, id, "undecided: repeat with the same id")
}

// answerOfOutcome returns the answer for an outcome. It returns nil for a message that was
// published, because its answer may still come.
func answerOfOutcome(o *transports.Outcome, id string) *answer {
	switch code := o.Code; {
	case errors.Is(o.Err, transports.ErrNotStarted):
		return refusalAnswer(nethttp.StatusServiceUnavailable, id, "not taken: "+o.Err.Error())
	case code == nethttp.StatusServiceUnavailable:
		a := "undecided: repeat with the same id"
		if o.Err != nil {
			a += ": " + o.Err.Error()
		}
		return refusalAnswer(code, id, a)
	case errors.Is(o.Err, transports.ErrEncoding):
		return refusalAnswer(nethttp.StatusUnsupportedMediaType, id, o.Err.Error())
	case errors.Is(o.Err, transports.ErrTooLarge):
		return refusalAnswer(nethttp.StatusRequestEntityTooLarge, id, o.Err.Error())
	case code >= 400 || code == 0 && o.Err != nil:
		if code < 400 || code > 599 {
			code = nethttp.StatusInternalServerError
		}
		reason := nethttp.StatusText(code)
		if o.Err != nil {
			reason = o.Err.Error()
		}
		return refusalAnswer(code, id, reason)
	case len(o.Messages) > 0 && slices.Contains([]string{typeResult, typeGroup}, o.Messages[0].Metadata[transports.Type]):
		return messageAnswer(o.Messages[0], codeOf(o.Messages[0].Payload))
	case o.Published:
		return nil
	case len(o.Messages) > 0:
		return messageAnswer(o.Messages[0], nethttp.StatusOK)
	default:
		return noteAnswer(nethttp.StatusOK, note{ID: id})
	}
}

// messageAnswer returns an answer that consists of a message.
func messageAnswer(msg *message.Message, status int) *answer {
	a := &answer{
		status:          status,
		contentType:     msg.Metadata[transports.ContentType],
		contentEncoding: msg.Metadata[transports.ContentEncoding],
		body:            msg.Payload,
	}
	switch {
	case a.contentType != "":
	case json.Valid(msg.Payload):
		a.contentType = "application/json"
	default:
		a.contentType = "application/octet-stream"
	}
	return a
}

// codeOf returns the status for a result. It is the result's code, 202 for a code under 200, and
// 200 if the code can't be the status of a response with a body.
func codeOf(result []byte) int {
	var r struct {
		Code int `json:"code"`
	}
	if json.Unmarshal(result, &r) != nil {
		return nethttp.StatusOK
	}
	switch {
	case r.Code >= 100 && r.Code < 200:
		return nethttp.StatusAccepted
	case r.Code < 200, r.Code > 599, r.Code == nethttp.StatusNoContent, r.Code == nethttp.StatusNotModified:
		return nethttp.StatusOK
	default:
		return r.Code
	}
}

func (a *answer) writeTo(w nethttp.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	if a.contentEncoding != "" {
		h.Set("Content-Encoding", a.contentEncoding)
	}
	if a.status == nethttp.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(retryAfter))
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the caller may be gone
}
