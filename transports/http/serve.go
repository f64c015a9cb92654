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

	"github.com/pentrough/pentrough/transports"
)

// ServeHTTP takes one request.
func (s *server) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	// The body, read or thrown away, is bounded in time; waiting for the outcome later isn't by this.
	control := nethttp.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(s.config.ReadTimeout))
	path, a := s.take(w, r, control)
	if a == nil {
		return // the caller has gone
	}
	s.requests.WithLabelValues(path, strconv.Itoa(a.status)).Inc()
	if s.quiescing() {
		w.Header().Set("Connection", "close")
	}
	_ = control.SetWriteDeadline(time.Now().Add(s.config.WriteTimeout))
	a.write(w)
}

// take judges the request, makes a message of it and waits for the answer. path is the topic, if it is one.
func (s *server) take(w nethttp.ResponseWriter, r *nethttp.Request, control *nethttp.ResponseController) (path string, a *answer) {
	if status, reason := s.access.check(r); status != 0 {
		if status == nethttp.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		return "", refusal(status, "", reason)
	}
	s.mu.Lock()
	rt := s.routes[r.URL.Path]
	live := rt != nil && rt.live()
	s.mu.Unlock()
	switch {
	case rt == nil:
		return "", refusal(nethttp.StatusNotFound, "", fmt.Sprintf("there is no topic of this path; there are: %s", strings.Join(s.paths(), ", ")))
	case r.Method != nethttp.MethodPost:
		w.Header().Set("Allow", nethttp.MethodPost)
		return rt.path, refusal(nethttp.StatusMethodNotAllowed, "", "a message is sent with POST")
	}
	wait, err := waitOf(r, s.config.MaxWait)
	if err != nil {
		return rt.path, refusal(nethttp.StatusBadRequest, "", err.Error())
	}
	metadata, err := metadataOf(r, s.env.Now())
	if err != nil {
		return rt.path, refusal(nethttp.StatusBadRequest, "", err.Error())
	}
	given := metadata[transports.MessageID]
	switch {
	case s.quiescing():
		return rt.path, notTaken(given, stopping)
	case !live:
		return rt.path, notTaken(given, unserved)
	}
	body, status, err := s.bodyOf(w, r)
	if err != nil {
		return rt.path, refusal(status, "", err.Error())
	}
	_ = control.SetReadDeadline(time.Time{})
	return rt.path, s.exchange(r.Context(), rt, metadata, body, wait)
}

// exchange gives the message to the pipeline and waits for what becomes of it. It returns nil if the caller has gone.
func (s *server) exchange(caller context.Context, rt *route, metadata message.Metadata, body []byte, wait time.Duration) *answer {
	started := time.Now()
	given := metadata[transports.MessageID]
	id := given
	if id == "" {
		id = uuid.NewString()
		metadata[transports.MessageID] = id
	}
	e := &exchange{reply: transports.NewReply(wait), refused: make(chan struct{})}
	ctx, void := context.WithCancelCause(transports.WithReply(context.Background(), e.reply))
	e.void = void
	e.msg = message.NewMessageWithContext(ctx, id, body)
	e.msg.Metadata = metadata
	if !s.enqueue(rt, e) {
		return notTaken(given, unserved)
	}

	deadline := time.NewTimer(s.config.RequestTimeout)
	defer deadline.Stop()
	quiesced := s.quiesced
	for {
		select {
		case <-e.reply.Done():
			return s.settled(caller, e.reply.Outcome(), id, wait-time.Since(started))
		case <-e.refused:
			return notTaken(given, unserved)
		case <-quiesced:
			if s.withdraw(e) {
				return notTaken(given, stopping)
			}
			quiesced = nil // it is the pipeline's already
		case <-deadline.C:
			// What was handed out is left to the host.
			if s.withdraw(e) {
				return notTaken(given, "too many messages are before this one")
			}
			return s.unsettled(caller, e, id)
		case <-e.msg.Nacked():
			return s.unsettled(caller, e, id)
		case <-ctx.Done(): // the subscription was closed
			return s.unsettled(caller, e, id)
		case <-s.life.Done():
			if s.withdraw(e) {
				return notTaken(given, stopping)
			}
			void(transports.ErrVoid)
			return s.unsettled(caller, e, id)
		case <-caller.Done():
			s.withdraw(e)
			void(transports.ErrVoid)
			return nil
		}
	}
}

// unsettled answers a request that can't wait any longer.
func (s *server) unsettled(caller context.Context, e *exchange, id string) *answer {
	select {
	case <-e.reply.Done():
		return s.settled(caller, e.reply.Outcome(), id, 0)
	default:
	}
	select {
	case <-e.msg.Acked():
		return accepted(id) // it was handled, and nobody said with what
	default:
		return undecided(id)
	}
}

// settled answers from the outcome; what was published is waited for if an answer can come.
func (s *server) settled(caller context.Context, o transports.Outcome, id string, wait time.Duration) *answer {
	if o.ID != "" {
		id = o.ID
	}
	if a := answerOf(o, id); a != nil {
		return a
	}
	if o.Answer == nil {
		return accepted(id)
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	select {
	case msg, ok := <-o.Answer:
		if ok {
			return produced(msg, codeOf(msg.Payload))
		}
		return accepted(id)
	case <-over.C:
		return accepted(id)
	case <-s.life.Done():
		return accepted(id)
	case <-caller.Done():
		return nil
	}
}
