package amqp

import (
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/transports"
)

// brokerNamed begins the name of a queue that was declared without a name; the broker chose it.
// The broker refuses all other names that begin with "amq.". directReply begins the name that the
// broker puts into a message for direct reply-to; that name leads only to the channel of the
// request.
const (
	brokerNamed = "amq.gen-"
	directReply = directReplyTo + "."
)

// replyQueues are the queues that the reply_to of a message may name. The host writes there with
// its own permissions, and the author of the message may have fewer. So by default only queues
// that the broker named are allowed: they belong to the client that declared them. See
// docs/decisions/0033.
type replyQueues struct {
	patterns []string
	// consumed has the streams that pipelines of this host consume.
	consumed map[string]struct{}
}

// newReplyQueues returns the queues that the patterns allow. Queues that a pipeline consumes are
// never allowed, even if the pipeline's transport has another address, because two addresses may
// lead to the same broker.
func newReplyQueues(patterns []string, consumed []transports.Topic) replyQueues {
	r := replyQueues{patterns: patterns, consumed: make(map[string]struct{}, len(consumed))}
	for _, t := range consumed {
		r.consumed[t.Stream] = struct{}{}
	}
	return r
}

// check returns why reply_to may not name a queue.
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
	return errors.New("the broker didn't choose that queue's name, and the transport's reply_to doesn't list it")
}

// checkPattern checks an entry of the setting reply_to.
func checkPattern(pattern string) error {
	if pattern == "" {
		return errors.New("is empty")
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return errors.New(`is not a pattern: a "[" isn't closed, or a "\\" is the last character`)
	}
	return nil
}
