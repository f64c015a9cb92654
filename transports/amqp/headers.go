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

// typedHeaders returns the headers that the message of ctx came with, in AMQP's own types. Of a message that was kept outside of the host
// they are read again; what can't be read goes on as text.
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

// render makes any header value readable. It never fails, and equal values give equal text.
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

// jsonable replaces what JSON has no word for.
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

// text is bytes as they are if they are text, else in base64.
func bytesText(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// decimal writes value / 10^scale exactly.
func decimalText(d amqp.Decimal) string {
	r := new(big.Rat).SetFrac(big.NewInt(int64(d.Value)), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(d.Scale)), nil))
	return r.FloatString(int(d.Scale))
}

// sendableHeader says whether the broker lets a header pass. CC and BCC steer its routing, which is the topic's business here,
// and it closes the channel of a sender who gives them another type than it wants.
func sendableHeader(name string) bool {
	return name != "" && len(name) <= maxShortString && !strings.EqualFold(name, "CC") && !strings.EqualFold(name, "BCC")
}

// size is at least what a header takes in a frame.
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
