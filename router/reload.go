package router

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pentrough/pentrough/handlers"
)

// Reload reloads all handlers that implement handlers.Reloader, at the same time. Pipelines go on
// handling messages. Reload returns when all calls have returned. A handler whose call failed goes
// on with the old version.
func (h *Host) Reload(ctx context.Context) error {
	var work sync.WaitGroup
	errs := make([]error, len(h.pipelines))
	for i, p := range h.pipelines {
		if r, ok := p.handler.(handlers.Reloader); ok {
			work.Go(func() {
				if err := r.Reload(ctx); err != nil {
					errs[i] = fmt.Errorf("pipeline %s: %w", p.config.Name, err)
				}
			})
		}
	}
	work.Wait()
	return errors.Join(errs...)
}
