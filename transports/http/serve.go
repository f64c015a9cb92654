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

// ServeHTTP takes one request. It answers every one: a handler that writes nothing says 200 to
// the caller.
func (s *server) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	// The body, read or thrown away, is bounded in time; waiting for the outcome later isn't by
	// this.
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

// handle judges the request, makes a message of it and waits for the answer. path is the topic,
// if it is one.
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
		return "", refusalAnswer(nethttp.StatusNotFound, "", fmt.Sprintf("there is no topic of this path; there are: %s", strings.Join(s.topicPaths(), ", ")))
	case r.Method != nethttp.MethodPost:
		w.Header().Set("Allow", nethttp.MethodPost)
		return path, refusalAnswer(nethttp.StatusMethodNotAllowed, "", "a message is sent with POST")
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

// exchange gives the message to the pipeline and waits for what becomes of it.
//
// caller ends when the caller hung up, or only closed its sending side: there is no telling
// which. Either way the message is taken back, or its delivery becomes void so that the host
// doesn't start it any more. What the host does with it nevertheless is the answer, for a caller
// that still reads.
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
	// It may have a subscription since the head was read.
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
			e.giveOutcome(nil) // what was handed out is left to the host
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

// settled answers from the outcome; what was published is waited for if an answer can come.
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
