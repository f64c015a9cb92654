package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/admin"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
)

// tapBroker taps a topic of a configuration at its broker. It starts the transport of the topic,
// but none of the transport's consumers.
func (l *listening) tapBroker(ctx context.Context, out, log io.Writer, ref transports.TopicRef) (err error) {
	c, _, err := load(l.file, redact.SetOf(log))
	if err != nil {
		return err
	}
	name, topic, err := ref.Split()
	if err != nil {
		return err
	}
	config, err := brokerOf(c.Router.Transports, name, topic)
	if err != nil {
		return advise(err, "leave out -c to tap a running host: pentrough listen %s", ref)
	}
	transport, err := config.New(transports.Env{
		Name: name, Host: c.Host.Name, Now: time.Now, Registerer: prometheus.NewRegistry(),
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return fmt.Errorf("building transport %s: %w", name, err)
	}
	tapper, ok := transport.(transports.Tapper)
	if !ok {
		return fmt.Errorf("topics of %s can't be tapped", name)
	}
	if err := transport.Start(ctx); err != nil {
		return fmt.Errorf("starting transport %s: %w", name, err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, transport.Close(closing))
	}()
	messages, err := tapper.Tap(ctx, topic)
	if err != nil {
		return advise(fmt.Errorf("tapping %s: %w", ref, err), "check the broker's address in %s", l.file)
	}
	announce(log, ref, unusedTopic(c.Router, ref))
	p := printer{out: out, json: l.json, left: l.count}
	for msg := range messages {
		line, err := admin.Line(msg)
		if err != nil {
			return fmt.Errorf("writing a message: %w", err)
		}
		if done, err := p.printLine(line); done || err != nil {
			return err
		}
	}
	return nil
}

// brokerOf returns the transport with that name if a broker has its topics, so that other
// processes can reach them too.
func brokerOf(all []router.Transport, name, topic string) (transports.Config, error) {
	for _, t := range all {
		if t.Name != name {
			continue
		}
		switch described, err := t.Config.Topic(topic, transports.Consume); {
		case err != nil:
			return nil, fmt.Errorf("topic %s of %s: %w", topic, name, err)
		case !described.Broker:
			return nil, fmt.Errorf("topic %s of %s exists only inside a running host", topic, name)
		}
		return t.Config, nil
	}
	return nil, fmt.Errorf("the configuration has no transport %s", name)
}
