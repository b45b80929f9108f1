package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	schemaDialect   = "https://json-schema.org/draft/2020-12/schema"
	durationPattern = `^-?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+$|^0$`
	bytesPattern    = `^[0-9]+ ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$`
)

// Schema returns the JSON schema (draft 2020-12) of files that Load takes, with the values in v as defaults and the doc tags as
// descriptions.
func Schema(v any) ([]byte, error) {
	root := schemaOf(reflect.Indirect(reflect.ValueOf(v)).Type(), reflect.Indirect(reflect.ValueOf(v)), 0)
	root["$schema"] = schemaDialect
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write schema: %w", err)
	}
	return append(out, '\n'), nil
}

// schemaOf describes t; v holds the default and is the zero Value where there is none.
func schemaOf(t reflect.Type, v reflect.Value, depth int) map[string]any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
		if v.IsValid() {
			v = v.Elem() // the zero Value for nil
		}
	}
	if depth > maxDepth {
		return map[string]any{}
	}
	switch {
	case t == durationType:
		return map[string]any{"type": "string", "pattern": durationPattern}
	case t == bytesType:
		return map[string]any{"type": []string{"string", "integer"}, "pattern": bytesPattern, "minimum": 0}
	case isSection(t):
		return sectionSchema(t, v, depth)
	case isCustom(t):
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), reflect.Value{}, depth+1)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), reflect.Value{}, depth+1)}
	case reflect.Interface:
		return map[string]any{}
	}
	return map[string]any{"type": typeName(t)}
}

func sectionSchema(t reflect.Type, v reflect.Value, depth int) map[string]any {
	properties := make(map[string]any)
	for _, f := range fieldsOf(t) {
		var fv reflect.Value
		if v.IsValid() {
			fv, _ = f.in(v, false)
		}
		p := schemaOf(f.typ, fv, depth+1)
		if f.doc != "" {
			p["description"] = f.doc
		}
		if len(f.enum) > 0 {
			p["enum"] = f.enum
		}
		if def, ok := plain(fv); ok && !f.secret && !isSection(deref(f.typ)) {
			p["default"] = def
		}
		properties[f.key] = p
		if file := f.fileKey(); file != "" {
			properties[file] = map[string]any{"type": "string", "description": "file that holds " + f.key}
		}
	}
	return map[string]any{"type": []string{"object", "null"}, "additionalProperties": false, "properties": properties}
}

// plain is the default as it would be written in YAML; ok is false for what has none worth showing.
func plain(v reflect.Value) (out any, ok bool) {
	if !v.IsValid() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map || v.Kind() == reflect.Pointer) && v.IsZero() {
		return nil, false
	}
	n, err := nodeOf(v, false)
	if err != nil {
		return nil, false
	}
	return out, n.Decode(&out) == nil
}

// Reference returns a markdown table of all keys of v with type, default, variable and meaning.
func Reference(v any) string {
	var b strings.Builder
	b.WriteString("| key | type | default | variable | meaning |\n|---|---|---|---|---|\n")
	value := reflect.Indirect(reflect.ValueOf(v))
	referenceRows(&b, value.Type(), value, "", true, 0)
	return b.String()
}

// referenceRows writes the rows of a section; env is false inside lists and maps, which have one variable as a whole.
func referenceRows(b *strings.Builder, t reflect.Type, v reflect.Value, path string, env bool, depth int) {
	if depth > maxDepth {
		return
	}
	for _, f := range fieldsOf(t) {
		at, inner := join(path, f.key), deref(f.typ)
		var fv reflect.Value
		if v.IsValid() {
			fv, _ = f.in(v, false)
		}
		if isSection(inner) {
			if fv.IsValid() {
				fv = reflect.Indirect(fv)
			}
			referenceRows(b, inner, fv, at, env, depth+1)
			continue
		}
		referenceRow(b, f, fv, at, env)
		if kind := inner.Kind(); (kind == reflect.Slice || kind == reflect.Map) && !isCustom(inner) {
			if item := deref(inner.Elem()); isSection(item) {
				suffix := map[bool]string{true: "[]", false: ".<name>"}[kind == reflect.Slice]
				referenceRows(b, item, reflect.New(item).Elem(), at+suffix, false, depth+1)
			}
		}
	}
}

func referenceRow(b *strings.Builder, f field, v reflect.Value, path string, env bool) {
	meaning := f.doc
	if len(f.enum) > 0 {
		meaning = strings.TrimSpace(meaning + " (" + strings.Join(f.enum, ", ") + ")")
	}
	if file := f.fileKey(); file != "" {
		meaning = strings.TrimSpace(meaning + "; or `" + file + "`: a file that holds it")
	}
	variable := ""
	if env {
		variable = "`" + EnvPrefix + envName(path) + "`"
	}
	cells := []string{"`" + path + "`", typeName(f.typ), defaultText(f, v), variable, strings.ReplaceAll(meaning, "|", "\\|")}
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func defaultText(f field, v reflect.Value) string {
	if f.secret || !v.IsValid() || v.IsZero() && v.Kind() != reflect.Bool && f.typ.Kind() != reflect.Int {
		return ""
	}
	n, err := nodeOf(v, false)
	if err != nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		n.Style = yaml.FlowStyle
	}
	text, err := yaml.Marshal(n)
	if err != nil {
		return ""
	}
	return "`" + strings.ReplaceAll(strings.TrimSpace(string(text)), "|", "\\|") + "`"
}
