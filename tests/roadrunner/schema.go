package roadrunner

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Service is one of the two that RoadRunner's plug-in speaks, as the file in
// testdata has it: what Carillon sends and takes is read and written by a
// description that it has no part in.
type Service struct {
	file    protoreflect.FileDescriptor
	methods protoreflect.MethodDescriptors
	name    protoreflect.FullName
}

// compile reads one file of testdata, which has one service.
func compile(t testing.TB, file string) *Service {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{"testdata"}}}
	files, err := compiler.Compile(t.Context(), file)
	if err != nil {
		t.Fatalf("compile %s: %v", file, err)
	}
	s := files[0].Services().Get(0)
	return &Service{file: files[0], methods: s.Methods(), name: s.FullName()}
}

// method finds one by its full name, such as
// /centrifugal.centrifugo.proxy.CentrifugoProxy/Connect.
func (s *Service) method(full string) protoreflect.MethodDescriptor {
	name, ok := strings.CutPrefix(full, "/"+string(s.name)+"/")
	if !ok {
		return nil
	}
	return s.methods.ByName(protoreflect.Name(name))
}

// path is the full name of a method.
func (s *Service) path(method string) string { return "/" + string(s.name) + "/" + method }

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

// read decodes a message of the file.
func (s *Service) read(name string, raw []byte) (*dynamicpb.Message, error) {
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

// field gives what a path such as result.offset leads to.
func field(m protoreflect.Message, path string) protoreflect.Value {
	var v protoreflect.Value
	for _, name := range strings.Split(path, ".") {
		v = m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(name)))
		if inner, ok := v.Interface().(protoreflect.Message); ok {
			m = inner
		}
	}
	return v
}

// str is a field as text.
func str(m protoreflect.Message, path string) string {
	if b, ok := field(m, path).Interface().([]byte); ok {
		return string(b)
	}
	return field(m, path).String()
}

// mapKey is the key of a map whose keys are strings.
func mapKey(of string) protoreflect.MapKey { return protoreflect.ValueOfString(of).MapKey() }
