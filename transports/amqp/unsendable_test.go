package amqp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

func TestABodyAboveTheLimitIsNotSent(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	r := start(t, config(url, func(c *Config) { c.MaxMessage = 10 }))
	err := r.publish("t", outgoing("small"), outgoing("eleven more"))
	if !errors.Is(err, transports.ErrUnsendable) || !strings.Contains(err.Error(), "the body has 11 bytes, max_message is 10") {
		t.Errorf("error %v", err)
	}
	if err := r.publish("t", outgoing("ten bytes.")); err != nil {
		t.Error(err)
	}
	if n := dial(t, url).depth("t"); n != 1 {
		t.Errorf("%d messages arrived, want the one that was sent alone", n)
	}
}

// The broker closes the channel because of an invalid message, whatever is wrong with it.
func TestAMessageThatAlwaysCostsTheChannelIsUnsendable(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	r := start(t, config(url))
	p := r.publisher("t").(*publisher)
	d, err := p.needDeclaration("t")
	if err != nil {
		t.Fatal(err)
	}
	// The marshaler doesn't pass such a header on.
	b := batch{outbox: r.tr.outbox, deadline: t.Context(), items: []item{
		{ctx: t.Context(), publishing: amqp.Publishing{MessageId: "1", Headers: amqp.Table{"CC": "no list"}}},
	}}
	if _, err := b.sendItems(d); !errors.Is(err, transports.ErrUnsendable) || !strings.Contains(err.Error(), "CC") {
		t.Errorf("error %v", err)
	}
	if err := p.Publish("t", outgoing("one")); err != nil {
		t.Error(err)
	}
}

// smallerLimit checks that a body beyond this broker's limit is recognized, and that no other
// message is lost.
func smallerLimit(t *testing.T, node *testenv.Node) {
	const publishers, each, large = 8, 100, 5000
	url := node.VHost(t)
	node.Eval(t, "application:set_env(rabbit, max_message_size, 1000)")
	defer node.Eval(t, "application:set_env(rabbit, max_message_size, 134217728)")
	r := start(t, config(url))
	var running sync.WaitGroup
	for range publishers {
		p := r.publisher("t")
		running.Go(func() {
			for i := range each {
				if err := p.Publish("t", outgoing(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 3 {
		err := r.publish("t", message.NewMessage("large", make([]byte, large)))
		if !errors.Is(err, transports.ErrUnsendable) || !strings.Contains(err.Error(), "message size 5000") {
			t.Errorf("error %v", err)
		}
	}
	running.Wait()
	if n := dial(t, url).depth("t"); n < publishers*each {
		t.Errorf("%d messages arrived", n)
	}
	if n := r.log.count("level="); n != 1 {
		t.Errorf("the log has %d lines:\n%s", n, r.log)
	}
}

func TestFateOfAMessageOnALostChannel(t *testing.T) {
	refused := func(code int, reason string) error {
		return plainError(&amqp.Error{Code: code, Reason: reason, Server: true})
	}
	for name, c := range map[string]struct {
		why     error
		alone   bool
		want    error
		careful bool
	}{
		"the connection went":                  {plainError((*amqp.Error)(nil)), true, transports.ErrUndecided, false},
		"the operator closed it":               {refused(amqp.ConnectionForced, "CONNECTION_FORCED - bye"), true, transports.ErrUndecided, false},
		"its exchange is gone":                 {refused(amqp.NotFound, "NOT_FOUND - no exchange 'mine' in vhost '/'"), false, errSendAgain, false},
		"another exchange is gone":             {refused(amqp.NotFound, "NOT_FOUND - no exchange 'other' in vhost '/'"), false, errSendAgain, false},
		"it isn't allowed":                     {refused(amqp.AccessRefused, "ACCESS_REFUSED - write access to exchange 'mine' in vhost '/' refused"), true, transports.ErrUndecided, false},
		"another isn't allowed":                {refused(amqp.AccessRefused, "ACCESS_REFUSED - write access to exchange 'other' in vhost '/' refused"), false, errSendAgain, false},
		"it is too large":                      {refused(amqp.PreconditionFailed, "PRECONDITION_FAILED - message size 70 is larger than max size 60"), false, transports.ErrUnsendable, false},
		"another is too large":                 {refused(amqp.PreconditionFailed, "PRECONDITION_FAILED - message size 700 is larger than max size 60"), false, errSendAgain, false},
		"it is wrong in another way":           {refused(amqp.PreconditionFailed, "PRECONDITION_FAILED - odd"), true, transports.ErrUnsendable, false},
		"one of them is somehow wrong":         {refused(amqp.PreconditionFailed, "PRECONDITION_FAILED - odd"), false, transports.ErrUndecided, false},
		"it costs the connection":              {refused(amqp.FrameError, "FRAME_ERROR - odd"), true, transports.ErrUndecided, false},
		"it does so again, alone":              {refused(amqp.FrameError, "FRAME_ERROR - odd"), true, transports.ErrUnsendable, true},
		"the broker ends, and it is a suspect": {refused(amqp.ConnectionForced, "CONNECTION_FORCED - bye"), true, transports.ErrUndecided, true},
	} {
		p := &pending{confirmWindow: &confirmWindow{onlyOne: c.alone, hadSuspects: c.careful}, declaration: &declaration{route: &route{exchange: "mine"}}, size: 70}
		if err := p.lossError(c.why); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// accessRefused checks that a topic to which the user may not publish delays no other topic, and
// works as soon as the user may publish.
func accessRefused(t *testing.T, node *testenv.Node) {
	url := node.VHost(t)
	node.Eval(t, `rabbit_auth_backend_internal:add_user(<<"clerk">>, <<"clerk">>, <<"guest">>)`)
	write := func(pattern string) {
		node.Eval(t, fmt.Sprintf(`rabbit_auth_backend_internal:set_permissions(<<"clerk">>, <<"%s">>, <<".*">>, <<"%s">>, <<".*">>, <<"guest">>)`,
			testenv.VHostOf(url), pattern))
	}
	write("^(pentrough|ours|theirs)$")
	r := start(t, config(strings.Replace(url, "guest:guest", "clerk:clerk", 1), topics(map[string]TopicConfig{"theirs": {Exchange: "locked"}})))
	theirs, ours := r.publisher("theirs"), r.publisher("ours")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if err := ours.Publish("ours", outgoing("x")); err != nil {
				t.Errorf("the topic that is allowed: %v", err)
			}
		}
	})
	for range 5 {
		err := theirs.Publish("theirs", outgoing("x"))
		if !errors.Is(err, transports.ErrUndecided) || !strings.Contains(err.Error(), "403 ACCESS_REFUSED") {
			t.Errorf("the topic that isn't: %v", err)
		}
	}
	write(".*")
	await.That(t, "publishing works", func() (any, bool) {
		err := theirs.Publish("theirs", outgoing("x"))
		return err, err == nil
	})
	cancel()
	running.Wait()
	if n := r.log.count("level="); n != 1 {
		t.Errorf("the log has %d lines:\n%s", n, r.log)
	}
}

// One bad message among many closes the channel twice: once with the others, and once alone.
func TestOneBadMessageAmongMany(t *testing.T) {
	t.Parallel()
	const publishers, each = 8, 200
	url := testenv.Broker(t).VHost(t)
	r := start(t, config(url))
	p := r.publisher("t").(*publisher)
	d, err := p.needDeclaration("t")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for range publishers {
		running.Go(func() {
			for i := range each {
				msg := outgoing(fmt.Sprint(i))
				await.That(t, "a good message is sent", func() (any, bool) {
					err := p.Publish("t", msg)
					return err, err == nil
				})
			}
		})
	}
	losses, bad := 0, amqp.Publishing{MessageId: "bad", Headers: amqp.Table{"CC": "no list"}}
	await.That(t, "the bad message is found", func() (any, bool) {
		b := batch{outbox: r.tr.outbox, deadline: t.Context(), items: []item{{ctx: t.Context(), publishing: bad}}}
		_, err := b.sendItems(d)
		losses++
		return err, errors.Is(err, transports.ErrUnsendable)
	})
	if losses > 3 {
		t.Errorf("it was sent %d times until it was found", losses)
	}
	running.Wait()
}

// frameLimit checks that headers that don't fit into one of this broker's frames don't close the
// connection.
func frameLimit(t *testing.T, node *testenv.Node) {
	node.Eval(t, "application:set_env(rabbit, frame_max, 8192)")
	defer node.Eval(t, "application:set_env(rabbit, frame_max, 131072)")
	url := node.VHost(t)
	r := start(t, config(url))
	for _, n := range []int{4000, 7000, 8100, 8192, 9000, 60_000} {
		msg := outgoing("body")
		msg.Metadata["header.small"] = "kept"
		msg.Metadata["header.large"] = strings.Repeat("x", n)
		for _, key := range []string{transports.CorrelationID, transports.ContentType, transports.Type, transports.AppID, transports.ReplyTo} {
			msg.Metadata[key] = strings.Repeat("p", 255)
		}
		if err := r.publish("t", msg); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if err := r.publish("t", message.NewMessage("large body", make([]byte, 100_000))); err != nil {
		t.Errorf("a large body: %v", err)
	}
	sub := r.subscribe(t.Context(), "t")
	for _, n := range []int{4000, 0, 0, 0, 0, 0} {
		msg := next(t, sub)
		if got := len(msg.Metadata["header.large"]); got != n || msg.Metadata["header.small"] != "kept" {
			t.Errorf("a header of %d bytes arrived, want %d; %d keys", got, n, len(msg.Metadata))
		}
		msg.Ack()
	}
	if n := testutil.ToFloat64(r.tr.metrics.unsendable); n != 5 {
		t.Errorf("%v headers were left out", n)
	}
}
