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

// The metadata keys of a tick, in addition to message_id and timestamp.
const (
	prefix = "schedule."
	// dueKey is the key of the time when the tick was due.
	dueKey = prefix + "due"
	// missedKey is the key of the number of ticks that the consumer missed since the one before.
	missedKey = prefix + "missed"
)

// tickKeys are the metadata keys that a tick sets, in addition to those with the prefix.
var tickKeys = []string{transports.MessageID, transports.Timestamp, transports.Redelivered}

// idNamespace is the UUID namespace of the ids of ticks.
var idNamespace = uuid.MustParse("5e1d3c1e-6f0c-4d0b-9a53-9f0a6a1f9c27")

// newTick makes the nth tick of a topic, for all its consumers. A tick of the same host,
// transport, topic and due time always has the same id.
func newTick(env transports.Env, topic string, config TopicConfig, due time.Time, n uint64) *transports.Delivery {
	due = due.UTC()
	stamp := due.Format(time.RFC3339Nano)
	id := uuid.NewSHA1(idNamespace, []byte(strings.Join([]string{env.Host, env.Name, topic, stamp}, "\x00"))).String()
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
