// Package config fills a typed struct from defaults, a strict YAML file, environment variables and flags, and describes the same struct
// as effective YAML, JSON schema and reference table. It knows nothing of what is configured: everything comes from the
// struct's tags (yaml, doc, secret, enum) and its Validate methods.
package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// EnvPrefix begins the environment variable of every key: gateway.listen is CARILLON_GATEWAY_LISTEN.
const EnvPrefix = "CARILLON_"

// maxMistakes is how many mistakes one Load reports.
const maxMistakes = 20

// Source is where values come from, the strongest last in this order: the defaults in the struct, File, Env, Set.
type Source struct {
	// File is a YAML file; empty: none. An unknown key is a mistake.
	File string
	// Env are NAME=value pairs as of os.Environ. Only names with EnvPrefix count; an unknown one is a mistake, an empty value is no value.
	// Lists may be written with commas, lists of sections as inline YAML.
	Env []string
	// Set are path=value pairs of the command line.
	Set []string
	// Ignore names top-level sections that belong to others, in the file and in variables.
	Ignore []string
}

// Validator is implemented by configuration values that check themselves after loading. The message says what is wrong and what would be right;
// the path of the value is put before it.
type Validator interface{ Validate() error }

// Defaulter is implemented (on the pointer) by elements of lists and maps that have defaults other than zero values.
type Defaulter interface{ SetDefaults() }

// Load fills dst, a pointer to a struct that holds the defaults, and then calls Validate on every value in it that has it, inner ones first. The
// error has one line for each mistake, with the place (file:line or variable), the key and what would be right. Values of the form ${VAR} are
// not expanded. A string field x with the tag secret:"true" may be given as x_file: the file's content without its final newline.
func (s Source) Load(dst any) error {
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("config: Load needs a pointer to a struct, got %T", dst)
	}
	l := &loader{root: v.Elem(), ignore: s.Ignore, origins: make(map[string]string)}
	if s.File != "" {
		l.file(s.File)
	}
	l.env(s.Env)
	l.set(s.Set)
	if len(l.mistakes) == 0 {
		l.validate(l.root, "")
	}
	return l.err()
}

// loader is the state of one Load.
type loader struct {
	root     reflect.Value
	ignore   []string
	origins  map[string]string // path -> where its value was set last
	mistakes []error
}

// mistake records what is wrong at a place (file:line, variable; may be empty) with a key (may be empty).
func (l *loader) mistake(place, path, format string, args ...any) {
	var b strings.Builder
	for _, part := range []string{place, path} {
		if part != "" {
			b.WriteString(part + ": ")
		}
	}
	fmt.Fprintf(&b, format, args...)
	for _, known := range l.mistakes {
		if known.Error() == b.String() { // an inlined struct's Validate is its parent's too
			return
		}
	}
	l.mistakes = append(l.mistakes, errors.New(b.String()))
}

func (l *loader) err() error {
	if n := len(l.mistakes); n > maxMistakes {
		return errors.Join(append(l.mistakes[:maxMistakes:maxMistakes], fmt.Errorf("and %d more", n-maxMistakes))...)
	}
	return errors.Join(l.mistakes...)
}

func (l *loader) file(name string) {
	f, err := os.Open(name)
	if err != nil {
		l.mistake("", "", "read configuration: %v", err)
		return
	}
	defer f.Close()
	dec := yaml.NewDecoder(f)
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case isEOF(err): // an empty file says nothing
		return
	case err != nil:
		l.mistake(name, "", "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if err := dec.Decode(new(yaml.Node)); !isEOF(err) {
		l.mistake(name, "", "more than one YAML document, want one")
		return
	}
	place := func(n *yaml.Node) string { return fmt.Sprintf("%s:%d", name, n.Line) }
	l.value(doc.Content[0], l.root, "", place)
}

// FieldErrorf is for Validate methods: an error that belongs to the key field below the value.
func FieldErrorf(field, format string, args ...any) error {
	return &fieldError{field, fmt.Errorf(format, args...)}
}

type fieldError struct {
	field string
	err   error
}

func (e *fieldError) Error() string { return e.field + ": " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

// validate calls Validate on v and what is in it, the innermost first.
func (l *loader) validate(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() && v.Kind() == reflect.Pointer {
			l.validate(v.Elem(), path)
		}
		return
	case reflect.Struct:
		if isSection(v.Type()) {
			for _, f := range fieldsOf(v.Type()) {
				if fv, ok := f.in(v, false); ok {
					l.validate(fv, join(path, f.key))
				}
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			l.validate(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			l.validate(it.Value(), join(path, fmt.Sprint(it.Key())))
		}
	}
	l.check(v, path)
}

func (l *loader) check(v reflect.Value, path string) {
	var checked Validator
	if v.CanAddr() {
		checked, _ = v.Addr().Interface().(Validator)
	} else if v.CanInterface() {
		checked, _ = v.Interface().(Validator)
	}
	if checked == nil {
		return
	}
	err := checked.Validate()
	if err == nil {
		return
	}
	errs := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		errs = joined.Unwrap()
	}
	for _, err := range errs {
		at := path
		var fe *fieldError
		if errors.As(err, &fe) {
			at, err = join(path, fe.field), fe.err
		}
		l.mistake(l.origins[at], at, "%v", err)
	}
}

func join(path, key string) string {
	if path == "" || key == "" {
		return path + key
	}
	return path + "." + key
}
