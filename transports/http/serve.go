package http

import (
	"context"
	"fmt"
	nethttp "net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/transports"
)

// ServeHTTP handles one request. It writes an answer in every case: otherwise net/http would
// answer 200.
func (s *server) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	// Reading or discarding the body is limited in time. Waiting for the outcome later isn't.
	control := nethttp.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(s.config.ReadTimeout))
	path, a := s.handleRequest(w, r, control)
	s.requests.WithLabelValues(path, strconv.Itoa(a.status)).Inc()
	if s.isQuiescing() {
		w.Header().Set("Connection", "close")
	}
	_ = control.SetWriteDeadline(time.Now().Add(s.config.WriteTimeout))
	a.writeTo(w)
}

// handleRequest checks the request, makes a message of it and waits for the answer. path is the
// topic, or "" if the request's path isn't one.
func (s *server) handleRequest(w nethttp.ResponseWriter, r *nethttp.Request, control *nethttp.ResponseController) (path string, a *answer) {
	if status, reason := s.access.checkAccess(r); status != 0 {
		if status == nethttp.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		listen.CloseAfter(w)
		return "", refusalAnswer(status, "", reason)
	}
	conn := listen.ConnOf(r)
	if s.access.token != nil {
		conn.Keep()
	}
	path = r.URL.Path
	u, known := s.subscriptionOf(path)
	switch {
	case !known:
		return "", refusalAnswer(nethttp.StatusNotFound, "", fmt.Sprintf("there is no topic of this path; the topics are %s", strings.Join(s.topicPaths(), ", ")))
	case r.Method != nethttp.MethodPost:
		w.Header().Set("Allow", nethttp.MethodPost)
		return path, refusalAnswer(nethttp.StatusMethodNotAllowed, "", "send a message with POST")
	}
	wait, err := waitOf(r, s.config.MaxWait)
	if err != nil {
		return path, refusalAnswer(nethttp.StatusBadRequest, "", err.Error())
	}
	metadata, err := metadataOf(r, s.env.Now())
	if err != nil {
		return path, refusalAnswer(nethttp.StatusBadRequest, "", err.Error())
	}
	given := metadata[transports.MessageID]
	switch {
	case s.isQuiescing():
		return path, notTaken(given, stopping)
	case u == nil:
		return path, notTaken(given, noPipeline)
	}
	body, taken, refused := s.bodyOf(w, r, given)
	defer s.env.Memory.Bodies.Give(taken)
	if refused != nil {
		return path, refused
	}
	if !conn.Keep() {
		return path, notTaken(given, hungUp)
	}
	_ = control.SetReadDeadline(time.Time{})
	return path, s.awaitAnswer(r.Context(), path, metadata, body, wait)
}

// awaitAnswer passes the message to the pipeline and waits for the answer.
//
// caller ends when the caller hangs up or closes only its sending side; the host can't tell which.
// In both cases awaitAnswer withdraws the message, or makes its delivery void so that no run
// starts. If the host handles the message anyway, awaitAnswer returns the outcome, because the
// caller may still read.
func (s *server) awaitAnswer(caller context.Context, path string, metadata message.Metadata, body []byte, wait time.Duration) *answer {
	started := time.Now()
	given := metadata[transports.MessageID]
	id := given
	if id == "" {
		id = uuid.NewString()
		metadata[transports.MessageID] = id
	}
	e := &exchange{outcome: make(chan *transports.Outcome, 1)}
	ctx, void := context.WithCancelCause(context.Background())
	e.void = void
	e.Delivery = transports.Delivery{UUID: id, Payload: body, Metadata: metadata, Context: ctx, Wait: wait, Settle: e.settle}
	// A pipeline may have subscribed since the head was read.
	u, _ := s.subscriptionOf(path)
	if u == nil || !u.enqueue(e) {
		return notTaken(given, noPipeline)
	}

	deadline := time.NewTimer(s.config.RequestTimeout)
	defer deadline.Stop()
	quiesced, closed, gone, over := s.quiesced, u.open.Done(), caller.Done(), u.life.Done()
	for {
		var reason string
		select {
		case o := <-e.outcome:
			return s.answerSettled(o, id, wait-time.Since(started))
		case <-quiesced:
			quiesced, reason = nil, stopping
		case <-closed:
			closed, reason = nil, noPipeline
		case <-gone:
			gone, reason = nil, hungUp
		case <-deadline.C:
			reason = tooManyBefore
			e.giveOutcome(nil) // a delivered message stays with the pipeline
		case <-over:
			over, reason = nil, noPipeline
			e.giveOutcome(nil)
		}
		switch {
		case e.withdraw():
			return notTaken(given, reason)
		case caller.Err() != nil:
			e.cancel()
		}
	}
}

// answerSettled returns the answer for an outcome. If the message was published and an answer can
// still come, answerSettled waits for that answer.
func (s *server) answerSettled(o *transports.Outcome, id string, wait time.Duration) *answer {
	if o == nil {
		return undecidedAnswer(id)
	}
	if o.ID != "" {
		id = o.ID
	}
	if a := answerOfOutcome(o, id); a != nil {
		return a
	}
	if o.Answer == nil {
		return acceptedAnswer(id)
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	select {
	case msg, ok := <-o.Answer:
		if ok {
			return messageAnswer(msg, codeOf(msg.Payload))
		}
	case <-over.C:
	case <-s.life.Done():
	}
	return acceptedAnswer(id)
}
