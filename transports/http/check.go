package http

import (
	"context"

	"github.com/pentrough/pentrough/transports"
)

var _ transports.Checker = (*Config)(nil)

// Check implements transports.Checker. It loads the certificate, if one is configured.
func (c *Config) Check(_ context.Context, env transports.Env, _ []transports.TopicUse) []transports.Check {
	if c.TLS == nil {
		return nil
	}
	return []transports.Check{c.TLS.CheckFiles(env.Now())}
}
