// Package wire describes the two gRPC services between Centrifugo and an
// application a second time, from their documentation: what Carillon sends and
// takes is read and written here by a description that it has no part in.
package wire

import (
	"embed"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

//go:embed *.proto
var files embed.FS

// Service is one of the two.
type Service struct {
	Methods protoreflect.MethodDescriptors

	file protoreflect.FileDescriptor
	name protoreflect.FullName
}

// Proxy is what asks the application (CentrifugoProxy).
func Proxy(t testing.TB) *Service {
	t.Helper()
	return compile(t, "proxy.proto")
}

// API is what the application calls (CentrifugoApi).
func API(t testing.TB) *Service {
	t.Helper()
	return compile(t, "api.proto")
}

// compile reads one file, which has one service.
func compile(t testing.TB, file string) *Service {
	t.Helper()
	open := func(path string) (io.ReadCloser, error) { return files.Open(path) }
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{Accessor: open}}
	compiled, err := compiler.Compile(t.Context(), file)
	if err != nil {
		t.Fatalf("compile %s: %v", file, err)
	}
	s := compiled[0].Services().Get(0)
	return &Service{file: compiled[0], Methods: s.Methods(), name: s.FullName()}
}

// Method finds one by its full name, such as
// /centrifugal.centrifugo.proxy.CentrifugoProxy/Connect; nil if there is none.
func (s *Service) Method(full string) protoreflect.MethodDescriptor {
	name, ok := strings.CutPrefix(full, s.Path(""))
	if !ok {
		return nil
	}
	return s.Methods.ByName(protoreflect.Name(name))
}

// Path is the full name of a method.
func (s *Service) Path(method string) string { return "/" + string(s.name) + "/" + method }

// Message reads a message of the file in protobuf's text form.
func (s *Service) Message(name, text string) (*dynamicpb.Message, error) {
	d := s.file.Messages().ByName(protoreflect.Name(name))
	if d == nil {
		return nil, fmt.Errorf("%s has no message %s", s.file.Path(), name)
	}
	m := dynamicpb.NewMessage(d)
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		return nil, fmt.Errorf("%s %q: %w", name, text, err)
	}
	return m, nil
}

// Read decodes a message of the file; fields that it does not know are an
// error.
func (s *Service) Read(name string, raw []byte) (*dynamicpb.Message, error) {
	m, err := s.Message(name, "")
	if err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		return nil, fmt.Errorf("%s has fields that nobody knows: %x", name, unknown)
	}
	return m, nil
}

// Field gives what a path such as result.offset leads to.
func Field(m protoreflect.Message, path string) protoreflect.Value {
	var v protoreflect.Value
	for _, name := range strings.Split(path, ".") {
		v = m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(name)))
		if inner, ok := v.Interface().(protoreflect.Message); ok {
			m = inner
		}
	}
	return v
}

// Text is a field as text.
func Text(m protoreflect.Message, path string) string {
	if b, ok := Field(m, path).Interface().([]byte); ok {
		return string(b)
	}
	return Field(m, path).String()
}

// Key is the key of a map whose keys are strings.
func Key(of string) protoreflect.MapKey { return protoreflect.ValueOfString(of).MapKey() }
