package hook

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is a field of a message with its number.
type field struct {
	number protowire.Number
	index  []int
}

// fieldsOf lists the fields of a struct that have a tag pb, those of embedded
// structs among them, by rising number.
func fieldsOf(t reflect.Type) []field {
	if known, ok := fieldCache.Load(t); ok {
		return known.([]field)
	}
	var fields []field
	for _, sf := range reflect.VisibleFields(t) {
		if n, err := strconv.Atoi(sf.Tag.Get("pb")); err == nil {
			fields = append(fields, field{protowire.Number(n), sf.Index})
		}
	}
	slices.SortFunc(fields, func(a, b field) int { return int(a.number - b.number) })
	fieldCache.Store(t, fields)
	return fields
}

var fieldCache sync.Map // reflect.Type -> []field

// marshal appends the protobuf form of the struct v. Its fields are strings,
// bytes, integers, booleans, pointers to structs, lists of strings and maps of
// strings or of pointers to structs; other types are a programming mistake.
func marshal(b []byte, v reflect.Value) []byte {
	for _, f := range fieldsOf(v.Type()) {
		if fv := v.FieldByIndex(f.index); !fv.IsZero() {
			b = marshalField(b, f.number, fv)
		}
	}
	return b
}

func marshalField(b []byte, n protowire.Number, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.String:
		return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), v.String())
	case reflect.Bool:
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), protowire.EncodeBool(v.Bool()))
	case reflect.Int64:
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(v.Int()))
	case reflect.Uint32:
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v.Uint())
	case reflect.Pointer:
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), marshal(nil, v.Elem()))
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v.Bytes())
		}
		for i := range v.Len() {
			b = protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), v.Index(i).String())
		}
		return b
	case reflect.Map:
		entries := map[string]reflect.Value{}
		for it := v.MapRange(); it.Next(); {
			entries[it.Key().String()] = it.Value()
		}
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), key)
			entry = marshalField(entry, 2, entries[key])
			b = protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), entry)
		}
		return b
	}
	panic("no protobuf form for " + v.Type().String())
}

var errProtobuf = errors.New("is not the protobuf message that it should be")

// unmarshal reads a message into the struct v. Fields that it does not know
// are skipped.
func unmarshal(data []byte, v reflect.Value) error {
	fields := fieldsOf(v.Type())
	for len(data) > 0 {
		n, wireType, size := protowire.ConsumeTag(data)
		if size < 0 || n > protowire.MaxValidNumber {
			return errProtobuf
		}
		data = data[size:]
		if size = protowire.ConsumeFieldValue(n, wireType, data); size < 0 {
			return errProtobuf
		}
		value := data[:size]
		data = data[size:]
		if i := slices.IndexFunc(fields, func(f field) bool { return f.number == n }); i >= 0 {
			if err := unmarshalField(value, wireType, v.FieldByIndex(fields[i].index)); err != nil {
				return fmt.Errorf("field %d: %w", n, err)
			}
		}
	}
	return nil
}

// unmarshalField reads one value, which is whole, into a field.
func unmarshalField(value []byte, wireType protowire.Type, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool, reflect.Int64, reflect.Uint32:
		return unmarshalNumber(value, wireType, v)
	}
	if wireType != protowire.BytesType {
		return errProtobuf
	}
	content, _ := protowire.ConsumeBytes(value)
	switch v.Kind() {
	case reflect.String:
		if !utf8.Valid(content) {
			return errors.New("is not UTF-8")
		}
		v.SetString(string(content))
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem())) // else it comes in parts, which are merged
		}
		return unmarshal(content, v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(slices.Clone(content))
			return nil
		}
		item := reflect.New(v.Type().Elem()).Elem()
		if err := unmarshalField(value, wireType, item); err != nil {
			return err
		}
		v.Set(reflect.Append(v, item))
	case reflect.Map:
		return unmarshalEntry(content, v)
	}
	return nil
}

func unmarshalNumber(value []byte, wireType protowire.Type, v reflect.Value) error {
	if wireType != protowire.VarintType {
		return errProtobuf
	}
	number, _ := protowire.ConsumeVarint(value)
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(number != 0)
	case reflect.Int64:
		v.SetInt(int64(number))
	default:
		v.SetUint(uint64(uint32(number)))
	}
	return nil
}

// unmarshalEntry reads an entry {key 1, value 2} of a map.
func unmarshalEntry(data []byte, m reflect.Value) error {
	if m.IsNil() {
		m.Set(reflect.MakeMap(m.Type()))
	}
	key, value := reflect.New(m.Type().Key()).Elem(), reflect.New(m.Type().Elem()).Elem()
	if value.Kind() == reflect.Pointer {
		value.Set(reflect.New(value.Type().Elem()))
	}
	for len(data) > 0 {
		n, wireType, size := protowire.ConsumeField(data)
		if size < 0 || n > protowire.MaxValidNumber {
			return errProtobuf
		}
		_, _, tag := protowire.ConsumeTag(data)
		var err error
		switch n {
		case 1:
			err = unmarshalField(data[tag:size], wireType, key)
		case 2:
			err = unmarshalField(data[tag:size], wireType, value)
		}
		if err != nil {
			return err
		}
		data = data[size:]
	}
	m.SetMapIndex(key, value)
	return nil
}
