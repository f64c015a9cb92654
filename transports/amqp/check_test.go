package amqp

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
)

func check(t *testing.T, c *Config, uses ...transports.TopicUse) []transports.Check {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return c.Check(ctx, transports.Env{Name: "broker", Host: "test"}, uses)
}

// TestCheckChangesNothing checks that a dry run creates nothing of what it says will be created.
func TestCheckChangesNothing(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("there", nil)
	never := false
	c := config(url, topics(map[string]TopicConfig{
		"there":   {Exchange: "amq.direct"},
		"away":    {Exchange: "houses"},
		"strict":  {Exchange: "houses", Declare: &never},
		"default": {Exchange: defaultExchange, Queue: "there"},
		"missing": {Exchange: "amq.nothing", Queue: "there"},
	}))
	peer.put("there", "one", "two")
	for range 2 {
		all := check(t, c,
			transports.TopicUse{Topic: "there", Use: transports.Consume}, transports.TopicUse{Topic: "away", Use: transports.Produce},
			transports.TopicUse{Topic: "strict", Use: transports.Produce}, transports.TopicUse{Topic: "strict", Use: transports.Consume},
			transports.TopicUse{Topic: "default", Use: transports.Produce}, transports.TopicUse{Topic: "missing", Use: transports.Consume},
		)
		for i, want := range []struct {
			found   string
			missing bool
			err     string
		}{
			{found: "logged in to "},
			{found: `exchange "amq.direct" exists, queue "there" exists (2 waiting, 0 consuming)`},
			{found: `exchange "houses" and queue "away" will be created`, missing: true},
			{err: `exchange "houses" doesn't exist`},
			{err: "exchange \"houses\" doesn't exist\nqueue \"strict\" doesn't exist"},
			{found: `queue "there" exists (2 waiting, 0 consuming)`},
			{err: `exchange "amq.nothing" doesn't exist`, found: `queue "there" exists`},
		} {
			got := all[i]
			text := ""
			if got.Err != nil {
				text = got.Err.Error()
			}
			if !strings.HasPrefix(got.Found, want.found) || got.Missing != want.missing || text != want.err || (text != "") != (got.Next != "") {
				t.Errorf("check %d is %+v", i, got)
			}
		}
	}
	for _, queue := range []string{"away", "strict"} {
		if peer.has(queue) {
			t.Errorf("queue %s was made", queue)
		}
	}
}

func TestCheckWithoutABroker(t *testing.T) {
	for url, next := range map[string]string{
		"amqp://guest:hunter2@127.0.0.1:1/": "start the broker, or correct its address",
		"amqp://":                           "",
	} {
		all := check(t, config(url), transports.TopicUse{Topic: "a", Use: transports.Consume})
		if len(all) != 1 || all[0].Err == nil || next != "" && all[0].Next != next || strings.Contains(all[0].Err.Error(), "hunter2") {
			t.Errorf("%s: %+v", url, all)
		}
	}
}
