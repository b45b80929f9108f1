package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// placer says where a node stands.
type placer func(*yaml.Node) string

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// value decodes a node into v. A null says nothing: what is there stays.
func (l *loader) value(n *yaml.Node, v reflect.Value, path string, place placer) {
	for depth := 0; n.Kind == yaml.AliasNode && depth < maxDepth; depth++ {
		n = n.Alias
	}
	if strings.Count(path, ".")+strings.Count(path, "[") > maxDepth {
		l.mistake(place(n), path, "nested too deeply")
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if path != "" {
		l.origins[path] = place(n)
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		l.value(n, v.Elem(), path, place)
		return
	}
	switch t := v.Type(); {
	case isSection(t):
		l.section(n, v, path, place)
	case isCustom(t):
		l.scalar(n, v, path, place)
	case t.Kind() == reflect.Slice:
		l.list(n, v, path, place)
	case t.Kind() == reflect.Map:
		l.table(n, v, path, place)
	default:
		l.scalar(n, v, path, place)
	}
}

func (l *loader) section(n *yaml.Node, v reflect.Value, path string, place placer) {
	fields := fieldsOf(v.Type())
	if n.Kind != yaml.MappingNode {
		l.mistake(place(n), path, "want a section with keys such as %s, got %s", keyList(fields), describe(n))
		return
	}
	for _, merged := range mergedInto(n) {
		l.section(merged, v, path, place)
	}
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			continue
		}
		at := join(path, key.Value)
		if seen[key.Value] {
			l.mistake(place(key), at, "the key is there twice")
			continue
		}
		seen[key.Value] = true
		if path == "" && slices.Contains(l.ignore, key.Value) {
			continue
		}
		l.entry(key, val, fields, v, at, place)
	}
	for _, f := range fields {
		if file := f.fileKey(); file != "" && seen[f.key] && seen[file] {
			l.mistake(place(n), join(path, f.key), "%s and %s are both there, want one of them", f.key, file)
		}
	}
}

// entry decodes one key of a section.
func (l *loader) entry(key, val *yaml.Node, fields []field, section reflect.Value, at string, place placer) {
	for _, f := range fields {
		fv, _ := f.in(section, true)
		switch key.Value {
		case f.key:
			l.value(val, fv, at, place)
			l.checkEnum(f, fv, at, place(val))
			return
		case f.fileKey():
			l.secretFile(val.Value, fv, at, place(val))
			return
		}
	}
	var known []string
	for _, f := range fields {
		known = append(known, f.key)
		if file := f.fileKey(); file != "" {
			known = append(known, file)
		}
	}
	if near := nearest(key.Value, known); near != "" {
		l.mistake(place(key), at, "unknown key, did you mean %s?", near)
		return
	}
	l.mistake(place(key), at, "unknown key, want one of %s", strings.Join(known, ", "))
}

// mergedInto returns the mappings that n takes in by "<<".
func mergedInto(n *yaml.Node) []*yaml.Node {
	var out []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			continue
		}
		from := []*yaml.Node{n.Content[i+1]}
		if from[0].Kind == yaml.SequenceNode {
			from = slices.Clone(from[0].Content)
			slices.Reverse(from) // the first one wins
		}
		for _, m := range from {
			if m.Kind == yaml.AliasNode {
				m = m.Alias
			}
			if m != n {
				out = append(out, m)
			}
		}
	}
	return out
}

func keyList(fields []field) string {
	keys := make([]string, 0, 4)
	for _, f := range fields {
		if len(keys) == 4 {
			break
		}
		keys = append(keys, f.key)
	}
	return strings.Join(keys, ", ")
}

func (l *loader) list(n *yaml.Node, v reflect.Value, path string, place placer) {
	if n.Kind != yaml.SequenceNode {
		l.mistake(place(n), path, "want a %s, got %s", typeName(v.Type()), describe(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		setDefaults(out.Index(i))
		l.value(item, out.Index(i), fmt.Sprintf("%s[%d]", path, i), place)
	}
	v.Set(out)
}

func (l *loader) table(n *yaml.Node, v reflect.Value, path string, place placer) {
	if n.Kind != yaml.MappingNode || v.Type().Key().Kind() != reflect.String {
		l.mistake(place(n), path, "want a %s, got %s", typeName(v.Type()), describe(n))
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, item := n.Content[i], reflect.New(v.Type().Elem()).Elem()
		setDefaults(item)
		l.value(n.Content[i+1], item, join(path, key.Value), place)
		name := reflect.ValueOf(key.Value).Convert(v.Type().Key())
		if out.MapIndex(name).IsValid() {
			l.mistake(place(key), join(path, key.Value), "the key is there twice")
		}
		out.SetMapIndex(name, item)
	}
	v.Set(out)
}

func setDefaults(v reflect.Value) {
	if v.Kind() == reflect.Pointer && v.IsNil() {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if d, ok := v.Addr().Interface().(Defaulter); ok {
		d.SetDefaults()
	}
}

func (l *loader) scalar(n *yaml.Node, v reflect.Value, path string, place placer) {
	var err error
	switch {
	case v.Type() == durationType:
		// YAML's own rule would read a bare 5 as five nanoseconds.
		var d time.Duration
		if d, err = time.ParseDuration(n.Value); err == nil {
			v.SetInt(int64(d))
		}
	case v.Kind() == reflect.String && !isCustom(v.Type()) && n.Kind == yaml.ScalarNode:
		v.SetString(n.Value)
	default:
		err = n.Decode(v.Addr().Interface())
	}
	if err == nil {
		return
	}
	var typeErr *yaml.TypeError
	if isCustom(v.Type()) && !errors.As(err, &typeErr) && v.Type() != bytesType {
		l.mistake(place(n), path, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	l.mistake(place(n), path, "want %s, got %s", wanted(v.Type()), describe(n))
}

func (l *loader) checkEnum(f field, v reflect.Value, path, place string) {
	if len(f.enum) == 0 || v.Kind() != reflect.String || slices.Contains(f.enum, v.String()) {
		return
	}
	l.mistake(place, path, "want one of %s, got %q", strings.Join(f.enum, ", "), v.String())
}

// secretFile reads the secret that stands in the file name.
func (l *loader) secretFile(name string, v reflect.Value, path, place string) {
	if name == "" {
		return
	}
	content, err := os.ReadFile(name)
	if err != nil {
		l.mistake(place, path, "%v", err)
		return
	}
	v.SetString(strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"))
	l.origins[strings.TrimSuffix(path, "_file")] = place
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	}
	if len(n.Value) > 40 {
		return fmt.Sprintf("%q...", n.Value[:40])
	}
	return fmt.Sprintf("%q", n.Value)
}
