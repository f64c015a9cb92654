package main

// The plugins of this build. Another build has another file of this name and nothing else to change.
import (
	_ "github.com/pentrough/pentrough/handlers/command"
	_ "github.com/pentrough/pentrough/handlers/deliver"
	_ "github.com/pentrough/pentrough/handlers/expr"
	_ "github.com/pentrough/pentrough/handlers/fanout"
	_ "github.com/pentrough/pentrough/handlers/passthrough"
	_ "github.com/pentrough/pentrough/handlers/route"
	_ "github.com/pentrough/pentrough/handlers/split"
	_ "github.com/pentrough/pentrough/handlers/store"
	_ "github.com/pentrough/pentrough/handlers/tally"
	_ "github.com/pentrough/pentrough/router/middleware/dedup"
	_ "github.com/pentrough/pentrough/router/middleware/poison"
	_ "github.com/pentrough/pentrough/router/middleware/retry"
	_ "github.com/pentrough/pentrough/router/middleware/throttle"
	_ "github.com/pentrough/pentrough/router/middleware/timeout"
	_ "github.com/pentrough/pentrough/transports/amqp"
	_ "github.com/pentrough/pentrough/transports/codec/delimiter"
	_ "github.com/pentrough/pentrough/transports/codec/fixed"
	_ "github.com/pentrough/pentrough/transports/codec/length"
	_ "github.com/pentrough/pentrough/transports/codec/line"
	_ "github.com/pentrough/pentrough/transports/codec/raw"
	_ "github.com/pentrough/pentrough/transports/http"
	_ "github.com/pentrough/pentrough/transports/memory"
	_ "github.com/pentrough/pentrough/transports/schedule"
	_ "github.com/pentrough/pentrough/transports/tcp"
)
