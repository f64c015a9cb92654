package middlewaretest_test

import (
	"testing"

	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
)

func TestLedger(t *testing.T) {
	middlewaretest.RunLedger(t, func(*testing.T) middleware.Ledger { return middlewaretest.NewLedger() })
}
