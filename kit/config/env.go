package config

import (
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// serviceLink matches the variables that Kubernetes sets in every pod for each service, here for services named carillon-something.
var serviceLink = regexp.MustCompile(`_SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PORT|PROTO|ADDR))?$`)

// fromKubernetes reports a service link; the short form NAME_PORT is told from a key by its value.
func fromKubernetes(name, value string) bool {
	return serviceLink.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}

// env applies the variables. Secrets in files come first, so that the variable itself wins over its _FILE twin only by being a mistake.
func (l *loader) env(pairs []string) {
	given := make(map[string]string)
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, EnvPrefix) && value != "" && !l.ignored(name) && !fromKubernetes(name, value) {
			given[name] = value
		}
	}
	var known []string
	for _, f := range leaves(l.root.Type()) {
		name := f.env()
		known = append(known, name)
		value, ok := given[name]
		if !ok {
			continue
		}
		delete(given, name)
		if _, both := given[name+"_FILE"]; both && f.field.fileKey() != "" {
			l.mistake(name, f.path, "%s and %s_FILE are both set, want one of them", name, name)
		}
		l.text(f, value, name)
	}
	unknown := make([]string, 0, len(given))
	for name := range given {
		unknown = append(unknown, name)
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		if near := nearest(name, known); near != "" {
			l.mistake(name, "", "unknown variable, did you mean %s?", near)
			continue
		}
		l.mistake(name, "", "unknown variable: no key of the configuration has this name")
	}
}

func (l *loader) ignored(name string) bool {
	return slices.ContainsFunc(l.ignore, func(section string) bool {
		own := EnvPrefix + envName(section)
		return name == own || strings.HasPrefix(name, own+"_")
	})
}

func (l *loader) set(pairs []string) {
	all := leaves(l.root.Type())
	for _, pair := range pairs {
		path, value, ok := strings.Cut(pair, "=")
		if !ok {
			l.mistake("--set", "", "%q has no value, want path=value", pair)
			continue
		}
		if section, _, _ := strings.Cut(path, "."); slices.Contains(l.ignore, section) {
			continue
		}
		i := slices.IndexFunc(all, func(f leaf) bool { return f.path == path })
		if i < 0 {
			l.unknownPath(path, all)
			continue
		}
		l.text(all[i], value, "--set "+path)
	}
}

func (l *loader) unknownPath(path string, all []leaf) {
	var known []string
	for _, f := range all {
		if strings.HasPrefix(f.path, path+".") {
			l.mistake("--set", path, "is a section, set a key in it such as %s", f.path)
			return
		}
		known = append(known, f.path)
	}
	if near := nearest(path, known); near != "" {
		l.mistake("--set", path, "unknown key, did you mean %s?", near)
		return
	}
	l.mistake("--set", path, "unknown key")
}

// text sets a leaf from a variable or flag.
func (l *loader) text(f leaf, text, place string) {
	v := f.value(l.root)
	if f.file {
		l.secretFile(text, v, f.path, place)
		return
	}
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	l.origins[f.path] = place
	if v.Kind() == reflect.String && !isCustom(v.Type()) {
		v.SetString(text)
		l.checkEnum(f.field, v, f.path, place)
		return
	}
	if n := textNode(v.Type(), text); n != nil {
		l.value(n, v, f.path, func(*yaml.Node) string { return place })
		return
	}
	l.mistake(place, f.path, "want %s as inline YAML, got %q", wanted(v.Type()), text)
}

// textNode makes a node of a variable's text: scalars as they are, lists of scalars split at commas unless in brackets, all else as YAML.
func textNode(t reflect.Type, text string) *yaml.Node {
	trimmed := strings.TrimSpace(text)
	if t.Kind() == reflect.Slice && !isCustom(t) && !isSection(deref(t.Elem())) && !strings.HasPrefix(trimmed, "[") {
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for item := range strings.SplitSeq(trimmed, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list.Content = append(list.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: item})
			}
		}
		return list
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) == 0 {
		return nil
	}
	return doc.Content[0]
}
