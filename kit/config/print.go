package config

import (
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"
)

// redacted stands for a secret that is set.
const redacted = "(redacted)"

// userInfo is the part of a URL that may hold a password.
var userInfo = regexp.MustCompile(`://[^/@\s]+@`)

// Print writes v, a configuration struct or a pointer to one, as YAML with its secrets redacted.
func Print(w io.Writer, v any) error {
	n, err := nodeOf(reflect.ValueOf(v), false)
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return enc.Close()
}

func nodeOf(v reflect.Value, secret bool) (*yaml.Node, error) {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
		}
		v = v.Elem()
	}
	switch t := v.Type(); {
	case secret && v.IsZero() || secret && t.Kind() == reflect.Slice && v.Len() == 0:
	case secret && t.Kind() != reflect.Slice:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: redacted}, nil
	case isSection(t):
		return sectionNode(v)
	case t.Kind() == reflect.Map && !isCustom(t):
		return tableNode(v)
	case t.Kind() == reflect.Slice && !isCustom(t):
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			item, err := nodeOf(v.Index(i), secret)
			if err != nil {
				return nil, err
			}
			list.Content = append(list.Content, item)
		}
		if v.Len() == 0 {
			list.Style = yaml.FlowStyle
		}
		return list, nil
	}
	n := new(yaml.Node)
	if err := n.Encode(v.Interface()); err != nil {
		return nil, err
	}
	n.Value = userInfo.ReplaceAllString(n.Value, "://"+redacted+"@")
	return n, nil
}

func sectionNode(v reflect.Value) (*yaml.Node, error) {
	section := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fieldsOf(v.Type()) {
		fv, ok := f.in(v, false)
		if !ok {
			continue
		}
		val, err := nodeOf(fv, f.secret)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.key, err)
		}
		section.Content = append(section.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: f.key}, val)
	}
	return section, nil
}

func tableNode(v reflect.Value) (*yaml.Node, error) {
	table := &yaml.Node{Kind: yaml.MappingNode}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int {
		if a.String() < b.String() {
			return -1
		}
		return 1
	})
	for _, key := range keys {
		val, err := nodeOf(v.MapIndex(key), false)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", key, err)
		}
		table.Content = append(table.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key.String()}, val)
	}
	if len(keys) == 0 {
		table.Style = yaml.FlowStyle
	}
	return table, nil
}
