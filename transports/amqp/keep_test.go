package amqp

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

// instants compares times without their time zones.
var instants = cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })

func TestKeptHeadersAreWhatTheyWere(t *testing.T) {
	all := amqp.Table{
		"invalid": "\xff\x00", "nan": math.NaN(), "infinite": float32(math.Inf(-1)), "empty list": []any{}, "empty table": amqp.Table{},
		"int": 7, "late": int64(math.MinInt64),
	}
	for name, value := range everyType {
		all[name] = value
	}
	kept, err := headers(all).MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	all["int"] = int64(7)
	got := typedHeaders(transports.WithHeaders(context.Background(), transports.KeptHeaders(kept)))
	if diff := cmp.Diff(all, got, instants, cmpopts.EquateNaNs()); diff != "" {
		t.Error(diff)
	}
}

func TestHeadersThatCannotBeReadGoOnAsText(t *testing.T) {
	msg := outgoing("x")
	msg.Metadata["header.n"] = "5"
	msg.SetContext(transports.WithHeaders(msg.Context(), transports.KeptHeaders(`[["n","int32"]]`)))
	p, err := testMarshaler().Marshal(msg)
	if err != nil || p.Headers["n"] != "5" {
		t.Errorf("published %v, %v", p.Headers, err)
	}
	msg.SetContext(transports.WithHeaders(msg.Context(), transports.KeptHeaders(`[["n","int32","5"]]`)))
	if p, err = testMarshaler().Marshal(msg); err != nil || p.Headers["n"] != int32(5) {
		t.Errorf("published %v, %v", p.Headers, err)
	}
}

func FuzzKeptHeaders(f *testing.F) {
	kept, err := headers(everyType).MarshalText()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(kept)
	f.Add([]byte(`[["a","array",[["decimal","1/2"]]],["b","time","x"]]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		read, err := decodeHeaders(data)
		if err != nil {
			return
		}
		again, err := headers(read).MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		twice, err := decodeHeaders(again)
		if diff := cmp.Diff(read, twice, instants, cmpopts.EquateNaNs()); diff != "" || err != nil {
			t.Error(diff, err)
		}
	})
}
