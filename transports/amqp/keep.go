package amqp

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Typed headers can be stored outside the host, in the ledger for example, without losing a type.
//
// A stored table is JSON: a list of fields, each a list of name, type and value. A stored array is
// a list of items, each a list of type and value. All values are strings, except for void (null),
// tables and arrays (lists), so that JSON changes no number. A string that isn't valid UTF-8 is
// stored in base64, as type string64. Unsigned and signed types of each size are distinct, so that
// each value comes back with the type that it had.
//
// Invariant: decodeHeaders(MarshalText(h)) equals h, except that int becomes int64 and times are
// in UTC and whole seconds, as on the wire. The code has no state and needs no lock.

// headers are the headers of a message, in AMQP's types.
type headers amqp.Table

// MarshalText implements encoding.TextMarshaler.
func (h headers) MarshalText() ([]byte, error) {
	fields, err := encodeTable(amqp.Table(h))
	if err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

// decodeHeaders reads what MarshalText wrote.
func decodeHeaders(data []byte) (amqp.Table, error) {
	var fields []any
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, fmt.Errorf("reading stored headers: %w", err)
	}
	t, err := decodeTable(fields)
	if err != nil {
		return nil, fmt.Errorf("reading stored headers: %w", err)
	}
	return t, nil
}

// encodeTable returns the fields of a table in the stored form.
func encodeTable(t amqp.Table) ([]any, error) {
	fields := make([]any, 0, len(t))
	for name, value := range t {
		kind, kept, err := encodeValue(value)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		fields = append(fields, []any{name, kind, kept})
	}
	return fields, nil
}

// decodeTable reads the fields of a table from the stored form.
func decodeTable(fields []any) (amqp.Table, error) {
	t := make(amqp.Table, len(fields))
	for _, f := range fields {
		field, ok := f.([]any)
		if !ok || len(field) != 3 {
			return nil, fmt.Errorf("%v is not a field", f)
		}
		name, ok := field[0].(string)
		if !ok {
			return nil, fmt.Errorf("%v is not a name", field[0])
		}
		value, err := decodeValue(field[1], field[2])
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", name, err)
		}
		t[name] = value
	}
	return t, nil
}

// encodeValue returns a value's type and its stored form.
func encodeValue(value any) (kind string, kept any, err error) {
	switch v := value.(type) {
	case nil:
		return "void", nil, nil
	case bool:
		return "bool", strconv.FormatBool(v), nil
	case byte:
		return "uint8", strconv.Itoa(int(v)), nil
	case int8:
		return "int8", strconv.Itoa(int(v)), nil
	case int16:
		return "int16", strconv.Itoa(int(v)), nil
	case uint16:
		return "uint16", strconv.Itoa(int(v)), nil
	case int32:
		return "int32", strconv.Itoa(int(v)), nil
	case uint32:
		return "uint32", strconv.FormatUint(uint64(v), 10), nil
	case int:
		return "int64", strconv.Itoa(v), nil
	case int64:
		return "int64", strconv.FormatInt(v, 10), nil
	case float32:
		return "float32", strconv.FormatFloat(float64(v), 'g', -1, 32), nil
	case float64:
		return "float64", strconv.FormatFloat(v, 'g', -1, 64), nil
	case amqp.Decimal:
		return "decimal", fmt.Sprintf("%d/%d", v.Value, v.Scale), nil
	case time.Time:
		return "time", strconv.FormatInt(v.Unix(), 10), nil
	case []byte:
		return "bytes", base64.StdEncoding.EncodeToString(v), nil
	case string:
		if !utf8.ValidString(v) {
			return "string64", base64.StdEncoding.EncodeToString([]byte(v)), nil
		}
		return "string", v, nil
	case amqp.Table:
		fields, err := encodeTable(v)
		return "table", fields, err
	case []any:
		list := make([]any, 0, len(v))
		for _, item := range v {
			kind, kept, err := encodeValue(item)
			if err != nil {
				return "", nil, err
			}
			list = append(list, []any{kind, kept})
		}
		return "array", list, nil
	default:
		return "", nil, fmt.Errorf("AMQP has no type for %T", value)
	}
}

// decodeValue reads a value from its stored form.
func decodeValue(kind, kept any) (any, error) {
	switch v := kept.(type) {
	case nil:
		if kind == "void" {
			return nil, nil
		}
	case []any:
		switch kind {
		case "table":
			return decodeTable(v)
		case "array":
			return decodeArray(v)
		}
	case string:
		return decodeText(kind, v)
	}
	return nil, fmt.Errorf("%v is not of type %v", kept, kind)
}

// decodeArray reads the items of an array from the stored form.
func decodeArray(items []any) ([]any, error) {
	list := make([]any, 0, len(items))
	for _, i := range items {
		item, ok := i.([]any)
		if !ok || len(item) != 2 {
			return nil, fmt.Errorf("%v is not an item of an array", i)
		}
		value, err := decodeValue(item[0], item[1])
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, nil
}

// decodeText reads a value that is stored as a string.
func decodeText(kind any, text string) (any, error) {
	switch kind {
	case "string":
		return text, nil
	case "string64":
		b, err := base64.StdEncoding.DecodeString(text)
		return string(b), err
	case "bytes":
		return base64.StdEncoding.DecodeString(text)
	case "bool":
		return strconv.ParseBool(text)
	case "uint8":
		n, err := strconv.ParseUint(text, 10, 8)
		return byte(n), err
	case "int8":
		n, err := strconv.ParseInt(text, 10, 8)
		return int8(n), err
	case "int16":
		n, err := strconv.ParseInt(text, 10, 16)
		return int16(n), err
	case "uint16":
		n, err := strconv.ParseUint(text, 10, 16)
		return uint16(n), err
	case "int32":
		n, err := strconv.ParseInt(text, 10, 32)
		return int32(n), err
	case "uint32":
		n, err := strconv.ParseUint(text, 10, 32)
		return uint32(n), err
	case "int64":
		return strconv.ParseInt(text, 10, 64)
	case "float32":
		f, err := strconv.ParseFloat(text, 32)
		return float32(f), err
	case "float64":
		return strconv.ParseFloat(text, 64)
	case "time":
		n, err := strconv.ParseInt(text, 10, 64)
		return time.Unix(n, 0).UTC(), err
	case "decimal":
		value, scale, _ := strings.Cut(text, "/")
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return nil, err
		}
		s, err := strconv.ParseUint(scale, 10, 8)
		return amqp.Decimal{Value: int32(n), Scale: uint8(s)}, err
	}
	return nil, fmt.Errorf("there is no type %v", kind)
}
