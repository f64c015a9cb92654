package amqp

import (
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/transports"
)

// The broker names a queue "amq.gen-..." that is declared without a name, and refuses all other
// names that begin with "amq.". For direct reply-to it replaces the reply_to of a message by a
// name of the second kind, which leads to the asking channel alone.
const (
	brokerNamed = "amq.gen-"
	directReply = directReplyTo + "."
)

// replyQueues are the queues that the reply_to of a message may name. The host writes there with
// its own permissions, and whoever wrote the message may have fewer. So by default only queues
// are allowed whose names the broker made up: they belong to those who declared them. See
// docs/decisions/0033.
type replyQueues struct {
	patterns []string
	// consumed has the streams that pipelines of this host consume.
	consumed map[string]struct{}
}

// newReplyQueues returns what the patterns allow. Queues that a pipeline consumes are left out
// whatever their broker: two addresses may lead to one.
func newReplyQueues(patterns []string, consumed []transports.Topic) replyQueues {
	r := replyQueues{patterns: patterns, consumed: make(map[string]struct{}, len(consumed))}
	for _, t := range consumed {
		r.consumed[t.Stream] = struct{}{}
	}
	return r
}

// check returns why a message may not name a queue.
func (r *replyQueues) check(queue string) error {
	if _, own := r.consumed[queueStream(queue)]; own {
		return errors.New("a pipeline of this host consumes from that queue")
	}
	if strings.HasPrefix(queue, brokerNamed) || strings.HasPrefix(queue, directReply) {
		return nil
	}
	if slices.ContainsFunc(r.patterns, func(pattern string) bool {
		matches, err := path.Match(pattern, queue)
		return err == nil && matches
	}) {
		return nil
	}
	return errors.New("the broker didn't name that queue, and the transport's reply_to doesn't list it")
}

// checkPattern holds for entries of the setting reply_to.
func checkPattern(pattern string) error {
	if pattern == "" {
		return errors.New("is empty")
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return errors.New(`is no pattern: a "[" isn't closed, or a "\\" is the last character`)
	}
	return nil
}
