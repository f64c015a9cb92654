package router

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pentrough/pentrough/handlers"
)

// Reload has the handlers take what is new outside of the host, all at once, and returns when they
// have, or with what failed. Where it failed the old is still at work. Messages are handled
// meanwhile.
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
