// Package route is the handler that sends messages to one of several topics, by expressions.
package route

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/expression"
)

// way is a topic with the condition of its messages.
type way struct {
	when *expression.Program
	to   handlers.TopicRef
}

type router struct {
	env  *expression.Environment
	ways []way
	// by gives the key of a topic in topics; nil if the ways choose the topic.
	by     *expression.Program
	topics map[string]handlers.TopicRef
	// otherwise is the topic of messages that match nothing. If it is empty, such a message is
	// dropped, or is an error.
	otherwise handlers.TopicRef
	drop      bool
}

// allTopics returns all topics that messages may go to.
func (r *router) allTopics() []handlers.TopicRef {
	all := slices.Sorted(maps.Values(r.topics))
	for _, w := range r.ways {
		all = append(all, w.to)
	}
	if r.otherwise != "" {
		all = append(all, r.otherwise)
	}
	return all
}

// Handle produces a copy of msg for its topic.
func (r *router) Handle(msg *message.Message) ([]*message.Message, error) {
	to, err := r.chooseTopic(r.env.Message(msg))
	if err != nil {
		return nil, err
	}
	out := handlers.Forward(msg)
	handlers.SetDestination(out, to)
	return []*message.Message{out}, nil
}

func (r *router) chooseTopic(in *expression.Input) (handlers.TopicRef, error) {
	if r.by != nil {
		key, _, err := r.by.Text(in)
		if err != nil {
			return "", fmt.Errorf("by: %w", err)
		}
		if to, ok := r.topics[key]; ok {
			return to, nil
		}
		return r.unmatchedTopic(fmt.Errorf("by: topics has no key %.100q", key))
	}
	for i, w := range r.ways {
		matches, err := w.when.Bool(in)
		if err != nil {
			return "", fmt.Errorf("routes[%d]: %w", i, err)
		}
		if matches {
			return w.to, nil
		}
	}
	return r.unmatchedTopic(errUnmatched)
}

var errUnmatched = errors.New("no route matches")

func (r *router) unmatchedTopic(err error) (handlers.TopicRef, error) {
	switch {
	case r.otherwise != "":
		return r.otherwise, nil
	case r.drop:
		return "", handlers.Drop(err)
	default:
		return "", handlers.Permanent(err)
	}
}
