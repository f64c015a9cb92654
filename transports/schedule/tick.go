package schedule

import (
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/transports"
)

// The metadata of a tick, beside its message_id and timestamp.
const (
	prefix = "schedule."
	// dueKey is when the tick was due.
	dueKey = prefix + "due"
	// missedKey is how many ticks the consumer missed since the one before.
	missedKey = prefix + "missed"
)

// own are the metadata keys that a tick sets, beside those with the prefix.
var own = []string{transports.MessageID, transports.Timestamp, transports.Redelivered}

// space is the namespace of ticks' ids.
var space = uuid.MustParse("5e1d3c1e-6f0c-4d0b-9a53-9f0a6a1f9c27")

// newTick makes the n-th tick of a topic, the same for all of its consumers. Its id is the same
// for the same host, topic and due time.
func newTick(env transports.Env, topic string, config TopicConfig, due time.Time, n uint64) *transports.Delivery {
	due = due.UTC()
	stamp := due.Format(time.RFC3339Nano)
	id := uuid.NewSHA1(space, []byte(strings.Join([]string{env.Host, env.Name, topic, stamp}, "\x00"))).String()
	words := strings.NewReplacer(
		"{time}", due.Format(time.RFC3339),
		"{unix}", strconv.FormatInt(due.Unix(), 10),
		"{n}", strconv.FormatUint(n, 10),
		"{id}", id,
	)
	metadata := message.Metadata{}
	maps.Copy(metadata, config.Metadata)
	metadata[transports.MessageID] = id
	metadata[transports.Timestamp] = stamp
	metadata[dueKey] = stamp
	return &transports.Delivery{UUID: uuid.NewString(), Payload: []byte(words.Replace(config.Payload)), Metadata: metadata}
}
