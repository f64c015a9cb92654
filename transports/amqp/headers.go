package amqp

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

// typedHeaders returns the headers of the message of ctx, in AMQP's types. If the message was
// stored outside the host, typedHeaders reads the stored headers. If it can't read them, it
// returns nil, and the headers are sent as text.
func typedHeaders(ctx context.Context) amqp.Table {
	switch h := transports.ExtraOf(ctx).Headers.(type) {
	case headers:
		return amqp.Table(h)
	case transports.KeptHeaders:
		t, err := decodeHeaders(h)
		if err == nil {
			return t
		}
	}
	return nil
}

// renderHeader returns the text of any header value. It never fails, and equal values have equal
// texts.
func renderHeader(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case nil:
		return ""
	case bool:
		return strconv.FormatBool(v)
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case []byte:
		return bytesText(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case amqp.Decimal:
		return decimalText(v)
	case amqp.Table, []any:
		data, err := json.Marshal(jsonValue(v))
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(data)
	default:
		return fmt.Sprint(v)
	}
}

// jsonValue replaces values that JSON can't represent.
func jsonValue(value any) any {
	switch v := value.(type) {
	case amqp.Table:
		m := make(map[string]any, len(v))
		for key, value := range v {
			m[key] = jsonValue(value)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = jsonValue(v[i])
		}
		return list
	case float32:
		return jsonValue(float64(v))
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return renderHeader(v)
		}
		return v
	case []byte, time.Time:
		return renderHeader(v)
	case amqp.Decimal:
		return json.Number(decimalText(v))
	default:
		return v
	}
}

// bytesText returns bytes as they are if they are valid UTF-8, and in base64 otherwise.
func bytesText(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// decimalText returns value / 10^scale exactly.
func decimalText(d amqp.Decimal) string {
	r := new(big.Rat).SetFrac(big.NewInt(int64(d.Value)), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(d.Scale)), nil))
	return r.FloatString(int(d.Scale))
}

// sendableHeader reports whether the host may send a header of that name. The headers CC and BCC
// steer RabbitMQ's routing, which the topic decides here. The broker also closes the channel if
// their type is wrong.
func sendableHeader(name string) bool {
	return name != "" && len(name) <= maxShortString && !strings.EqualFold(name, "CC") && !strings.EqualFold(name, "BCC")
}

// headerSize returns an upper bound of a header's size in a frame.
func headerSize(name string, value any) int {
	const overhead = 8
	n := len(name) + overhead
	switch v := value.(type) {
	case string:
		n += len(v)
	case []byte:
		n += len(v)
	case amqp.Table:
		for key, value := range v {
			n += headerSize(key, value)
		}
	case []any:
		for _, value := range v {
			n += headerSize("", value)
		}
	default:
		n += 8
	}
	return n
}
