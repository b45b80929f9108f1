package config

import (
	"encoding"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxDepth ends the walk of a type that contains itself and of a document with an alias in itself.
const maxDepth = 32

var (
	durationType = reflect.TypeFor[time.Duration]()
	bytesType    = reflect.TypeFor[Bytes]()
	yamlType     = reflect.TypeFor[yaml.Unmarshaler]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// field is a key of a section. Fields of inlined structs are the section's own.
type field struct {
	key    string
	index  []int
	typ    reflect.Type
	secret bool
	doc    string
	enum   []string
}

// fileKey is the sibling that reads a secret from a file; empty for other fields.
func (f field) fileKey() string {
	if f.secret && f.typ.Kind() == reflect.String {
		return f.key + "_file"
	}
	return ""
}

// in returns the field's value in the section v. Inlined pointers on the way are made when alloc is set; ok is false when one is nil.
func (f field) in(v reflect.Value, alloc bool) (fv reflect.Value, ok bool) {
	for _, i := range f.index {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				if !alloc {
					return reflect.Value{}, false
				}
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v, true
}

func fieldsOf(t reflect.Type) []field { return appendFields(nil, t, nil, 0) }

func appendFields(out []field, t reflect.Type, index []int, depth int) []field {
	if depth > maxDepth {
		return out
	}
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, options, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		at := append(slices.Clip(index), i)
		if tag != "-" && (sf.IsExported() || sf.Anonymous) && slices.Contains(strings.Split(options, ","), "inline") {
			if inner := deref(sf.Type); inner.Kind() == reflect.Struct {
				out = appendFields(out, inner, at, depth+1)
				continue
			}
		}
		if tag == "-" || !sf.IsExported() {
			continue
		}
		if tag == "" {
			tag = strings.ToLower(sf.Name)
		}
		f := field{key: tag, index: at, typ: sf.Type, secret: sf.Tag.Get("secret") == "true", doc: sf.Tag.Get("doc")}
		if enum := sf.Tag.Get("enum"); enum != "" {
			f.enum = strings.Split(enum, ",")
		}
		out = append(out, f)
	}
	return out
}

// isSection reports whether t is a struct with keys, not one that is written as a scalar.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(yamlType) && !reflect.PointerTo(t).Implements(textType)
}

// isCustom reports whether t reads itself.
func isCustom(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(yamlType) || p.Implements(textType)
}

func deref(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// typeName is what the reference and the messages call a type.
func typeName(t reflect.Type) string {
	t = deref(t)
	switch {
	case t == durationType:
		return "duration"
	case t == bytesType:
		return "size"
	case isSection(t):
		return "section"
	case isCustom(t):
		return "string"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Slice, reflect.Array:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "map of " + typeName(t.Elem())
	case reflect.Interface:
		return "any"
	}
	return "string"
}

// wanted says how a value of type t is written, for messages.
func wanted(t reflect.Type) string {
	switch name := typeName(t); name {
	case "duration":
		return "a duration such as 5s, 250ms or 1h30m"
	case "size":
		return "a size such as 64KiB, 10MB or 4096"
	case "boolean":
		return "true or false"
	case "integer":
		if k := deref(t).Kind(); k >= reflect.Uint && k <= reflect.Uint64 {
			return "a whole number that is not negative"
		}
		return "a whole number"
	case "number":
		return "a number"
	case "string":
		return "a string"
	default:
		return "a " + name
	}
}

// leaf is a key that can be set from outside the file: it is reached through sections only.
type leaf struct {
	path  string
	way   []field
	file  bool // it names the file that holds the secret
	field field
}

func (f leaf) env() string { return EnvPrefix + envName(f.path) }

func envName(path string) string {
	return strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

// leaves lists the leaves of a section in the order of its fields.
func leaves(t reflect.Type) []leaf { return appendLeaves(nil, t, "", nil) }

func appendLeaves(out []leaf, t reflect.Type, path string, way []field) []leaf {
	if len(way) > maxDepth {
		return out
	}
	for _, f := range fieldsOf(t) {
		at, through := join(path, f.key), append(slices.Clip(way), f)
		if section := deref(f.typ); isSection(section) {
			out = appendLeaves(out, section, at, through)
			continue
		}
		out = append(out, leaf{path: at, way: through, field: f})
		if f.fileKey() != "" {
			out = append(out, leaf{path: at + "_file", way: through, field: f, file: true})
		}
	}
	return out
}

// value finds the leaf in root and makes the optional sections on the way.
func (f leaf) value(root reflect.Value) reflect.Value {
	v := root
	for _, step := range f.way {
		for v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v, _ = step.in(v, true)
	}
	return v
}

// Sections returns the top-level keys of a configuration struct or a pointer to one.
func Sections(t reflect.Type) []string {
	var keys []string
	for _, f := range fieldsOf(deref(t)) {
		keys = append(keys, f.key)
	}
	return keys
}
