package main

import (
	"context"
	"time"

	"github.com/pentrough/pentrough/internal/tracing"
	"github.com/pentrough/pentrough/router"
)

// flushTimeout is the longest time that the export of the last spans may take. If little time is
// left for the stop, the export gets a tenth of it.
const flushTimeout = time.Second

// openTracing starts the tracing that the configuration asks for. It does nothing if tracing is
// off.
func (r *run) openTracing() error {
	c := r.config.Tracing
	if c.Endpoint == "" {
		return nil
	}
	headers := make(map[string]string, len(c.Headers))
	for name, value := range c.Headers {
		headers[name] = string(value)
	}
	t, err := tracing.New(tracing.Config{
		Endpoint: c.Endpoint, Sample: c.Sample, Headers: headers, Service: c.Service, Version: versionName(), Host: r.config.Host.Name,
		Logger: r.log.With("part", "tracing"), Registerer: r.registry,
	})
	if err != nil {
		return err
	}
	r.tracing, r.config.Router.Tracer = t, t.Tracer()
	return nil
}

// stopHost stops the host and exports its last spans before ctx ends.
func (r *run) stopHost(ctx context.Context, host *router.Host) error {
	deadline, ok := ctx.Deadline()
	if r.tracing == nil || !ok {
		return host.Stop(ctx)
	}
	life, cancel := context.WithDeadline(ctx, deadline.Add(-min(flushTimeout, time.Until(deadline)/10)))
	defer cancel()
	err := host.Stop(life)
	r.closeTracing(ctx)
	return err
}

// closeTracing exports the last spans. It returns when ctx ends, and after a second at the latest.
// Only the first call has an effect.
func (r *run) closeTracing(ctx context.Context) {
	if r.tracing == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := r.tracing.Close(ctx); err != nil {
		r.log.Warn("stopping", "err", err)
	}
	r.tracing = nil
}
