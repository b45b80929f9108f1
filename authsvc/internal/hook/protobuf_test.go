package hook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// proxyMessages are Centrifugo's messages as the protobuf library knows them.
type proxyMessages struct{ file protoreflect.FileDescriptor }

// spec is a field: number, name and type, which is that of protobuf, with * for
// lists, or the name of a message, with < for a map to it.
type spec struct {
	number int32
	name   string
	typ    string
}

// proxyFile builds the descriptors from Centrifugo's proxy protocol (v6).
func proxyFile(t testing.TB) proxyMessages {
	t.Helper()
	from := []spec{{1, "client", "string"}, {2, "transport", "string"}, {3, "protocol", "string"}, {4, "encoding", "string"}}
	request := func(fields ...spec) []spec { return append(append([]spec(nil), from...), fields...) }
	messages := []struct {
		name   string
		fields []spec
	}{
		{"BoolValue", []spec{{1, "value", "bool"}}},
		{"Error", []spec{{1, "code", "uint32"}, {2, "message", "string"}, {3, "temporary", "bool"}}},
		{"Disconnect", []spec{{1, "code", "uint32"}, {2, "reason", "string"}}},
		{"SubscribeOptionOverride", []spec{
			{1, "presence", "BoolValue"}, {2, "join_leave", "BoolValue"}, {3, "force_recovery", "BoolValue"}, {4, "force_positioning", "BoolValue"}, {5, "force_push_join_leave", "BoolValue"},
		}},
		{"SubscribeOptions", []spec{{1, "expire_at", "int64"}, {2, "info", "bytes"}, {3, "b64info", "string"}, {4, "data", "bytes"}, {5, "b64data", "string"}, {6, "override", "SubscribeOptionOverride"}, {7, "server_tags_filter", "bytes"}}},
		{"ConnectRequest", request(spec{10, "data", "bytes"}, spec{11, "b64data", "string"}, spec{12, "name", "string"}, spec{13, "version", "string"}, spec{14, "channels", "*string"})},
		{"ConnectResult", []spec{
			{1, "user", "string"},
			{2, "expire_at", "int64"},
			{3, "info", "bytes"},
			{4, "b64info", "string"},
			{5, "data", "bytes"},
			{6, "b64data", "string"},
			{7, "channels", "*string"},
			{8, "subs", "<SubscribeOptions"},
			{9, "meta", "bytes"},
		}},
		{"RefreshRequest", request(spec{10, "user", "string"}, spec{11, "meta", "bytes"})},
		{"RefreshResult", []spec{{1, "expired", "bool"}, {2, "expire_at", "int64"}, {3, "info", "bytes"}, {4, "b64info", "string"}, {5, "meta", "bytes"}}},
		{"SubscribeRequest", request(spec{10, "user", "string"}, spec{11, "channel", "string"}, spec{12, "token", "string"}, spec{13, "meta", "bytes"}, spec{14, "data", "bytes"}, spec{15, "b64data", "string"})},
		{"SubscribeResult", []spec{
			{1, "expire_at", "int64"}, {2, "info", "bytes"}, {3, "b64info", "string"}, {4, "data", "bytes"}, {5, "b64data", "string"}, {6, "override", "SubscribeOptionOverride"}, {7, "allow", "*string"},
		}},
		{"PublishRequest", request(spec{10, "user", "string"}, spec{11, "channel", "string"}, spec{12, "data", "bytes"}, spec{13, "b64data", "string"}, spec{14, "meta", "bytes"})},
		{"PublishResult", []spec{{1, "data", "bytes"}, {2, "b64data", "string"}, {3, "skip_history", "bool"}, {4, "tags", "<string"}, {5, "idempotency_key", "string"}, {6, "delta", "bool"}}},
		{"RPCRequest", request(spec{10, "user", "string"}, spec{11, "method", "string"}, spec{12, "data", "bytes"}, spec{13, "b64data", "string"}, spec{14, "meta", "bytes"})},
		{"RPCResult", []spec{{1, "data", "bytes"}, {2, "b64data", "string"}}},
		{"SubRefreshRequest", request(spec{10, "user", "string"}, spec{11, "channel", "string"}, spec{12, "meta", "bytes"})},
		{"NotifyCacheEmptyRequest", []spec{{1, "channel", "string"}}},
		{"NotifyCacheEmptyResult", []spec{{1, "populated", "bool"}}},
		{"SubRefreshResult", []spec{{1, "expired", "bool"}, {2, "expire_at", "int64"}, {3, "info", "bytes"}, {4, "b64info", "string"}}},
	}
	file := &descriptorpb.FileDescriptorProto{Name: proto.String("proxy.proto"), Syntax: proto.String("proto3"), Package: proto.String("x")}
	for _, m := range messages {
		file.MessageType = append(file.MessageType, describe(m.name, m.fields))
	}
	for _, kind := range []string{"Connect", "Refresh", "Subscribe", "Publish", "RPC", "SubRefresh", "NotifyCacheEmpty"} {
		file.MessageType = append(file.MessageType, describe(kind+"Response", []spec{{1, "result", kind + "Result"}, {2, "error", "Error"}, {3, "disconnect", "Disconnect"}}))
	}
	fd, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return proxyMessages{fd}
}

func describe(name string, fields []spec) *descriptorpb.DescriptorProto {
	d := &descriptorpb.DescriptorProto{Name: &name}
	for _, f := range fields {
		fd := &descriptorpb.FieldDescriptorProto{Name: proto.String(f.name), JsonName: proto.String(f.name), Number: proto.Int32(f.number), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		typ := f.typ
		switch typ[0] {
		case '*':
			fd.Label, typ = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(), typ[1:]
		case '<':
			entry := describe(protoName(f.name)+"Entry", []spec{{1, "key", "string"}, {2, "value", typ[1:]}})
			entry.Options = &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}
			d.NestedType = append(d.NestedType, entry)
			fd.Label, typ = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(), name+"."+entry.GetName()
		}
		if scalar, ok := map[string]descriptorpb.FieldDescriptorProto_Type{
			"string": descriptorpb.FieldDescriptorProto_TYPE_STRING, "bytes": descriptorpb.FieldDescriptorProto_TYPE_BYTES, "bool": descriptorpb.FieldDescriptorProto_TYPE_BOOL,
			"int64": descriptorpb.FieldDescriptorProto_TYPE_INT64, "uint32": descriptorpb.FieldDescriptorProto_TYPE_UINT32,
		}[typ]; ok {
			fd.Type = scalar.Enum()
		} else {
			fd.Type, fd.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), proto.String(".x."+typ)
		}
		d.Field = append(d.Field, fd)
	}
	return d
}

// protoName is the name that the entry of a map must have.
func protoName(field string) string { return string(field[0]-'a'+'A') + field[1:] }

func (p proxyMessages) message(name string) *dynamicpb.Message {
	return dynamicpb.NewMessage(p.file.Messages().ByName(protoreflect.Name(name)))
}

// rawJSON are the fields that are bytes in protobuf and JSON in JSON.
var rawJSON = map[string]bool{"data": true, "info": true, "meta": true}

// toJSON gives a message in the JSON of our HTTP requests, and fails on fields
// that it does not know.
func (p proxyMessages) toJSON(t testing.TB, name string, data []byte) string {
	m := p.message(name)
	if err := proto.Unmarshal(data, m); err != nil {
		t.Errorf("%s: %v", name, err)
		return ""
	}
	if len(m.GetUnknown()) > 0 {
		t.Errorf("%s has fields that Centrifugo does not know: %x", name, m.GetUnknown())
	}
	var b bytes.Buffer
	b.WriteByte('{')
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + string(f.Name()) + `":`)
		switch v := m.Get(f); {
		case f.IsList():
			list := []string{}
			for j := range v.List().Len() {
				list = append(list, v.List().Get(j).String())
			}
			text, _ := json.Marshal(list)
			b.Write(text)
		case f.Kind() == protoreflect.BytesKind:
			b.Write(v.Bytes())
		default:
			text, _ := json.Marshal(v.String())
			b.Write(text)
		}
	}
	b.WriteByte('}')
	return b.String()
}

// fromJSON makes a message of the JSON that an HTTP hook would answer.
func (p proxyMessages) fromJSON(t testing.TB, name, text string) []byte {
	var doc any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Errorf("%s: %v", text, err)
		return nil
	}
	text2, err := json.Marshal(bytesToBase64(doc))
	if err != nil {
		t.Error(err)
		return nil
	}
	m := p.message(name)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text2, m); err != nil {
		t.Errorf("%s: %v", text2, err)
	}
	out, err := proto.Marshal(m)
	if err != nil {
		t.Error(err)
	}
	return out
}

// bytesToBase64 writes fields of bytes as protojson wants them.
func bytesToBase64(v any) any {
	doc, ok := v.(map[string]any)
	if !ok {
		return v
	}
	for name, value := range doc {
		if rawJSON[name] {
			raw, _ := json.Marshal(value)
			doc[name] = base64.StdEncoding.EncodeToString(raw)
			continue
		}
		doc[name] = bytesToBase64(value)
	}
	return doc
}

// Fields of the same message that come twice are merged, as protobuf wants it.
func TestUnmarshalMerges(t *testing.T) {
	one := marshal(nil, reflect.ValueOf(Response[RPCResult]{Error: &Error{Code: 7}}))
	two := marshal(nil, reflect.ValueOf(Response[RPCResult]{Error: &Error{Message: "m"}}))
	var out Response[RPCResult]
	if err := unmarshal(append(one, two...), reflect.ValueOf(&out).Elem()); err != nil || out.Error == nil || *out.Error != (Error{Code: 7, Message: "m"}) {
		t.Errorf("%+v, %v", out.Error, err)
	}
}

// FuzzUnmarshal: what the protobuf library refuses we refuse, and what it
// takes we read in the same way.
func FuzzUnmarshal(f *testing.F) {
	yes := Response[ConnectResult]{Result: &ConnectResult{
		User: "7", ExpireAt: 5, Channels: []string{"x"}, Subs: map[string]*SubOptions{"y": {Granting: Granting{Info: json.RawMessage("1")}}}, Meta: json.RawMessage(`{}`),
	}, Error: &Error{Code: 1, Temporary: true}}
	f.Add(marshal(nil, reflect.ValueOf(yes)))
	f.Add([]byte{0x0a, 3, 0x0a, 1, 0xff})
	messages := proxyFile(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		m := messages.message("ConnectResponse")
		wrong := proto.Unmarshal(data, m)
		var out Response[ConnectResult]
		err := unmarshal(data, reflect.ValueOf(&out).Elem())
		if wrong != nil && err == nil {
			t.Errorf("%x is taken: %v", data, wrong)
		}
		if wrong != nil || err != nil { // we are stricter: a field of another wire type is an error
			return
		}
		again := messages.message("ConnectResponse")
		if err := proto.Unmarshal(marshal(nil, reflect.ValueOf(out)), again); err != nil {
			t.Fatalf("%x: %v", data, err)
		}
		discardUnknown(m)
		if !proto.Equal(m, again) {
			t.Errorf("%x: %v, want %v", data, again, m)
		}
	})
}

func discardUnknown(m protoreflect.Message) {
	m.SetUnknown(nil)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				discardUnknown(v.Message())
				return true
			})
		case !f.IsMap() && !f.IsList() && f.Message() != nil:
			discardUnknown(v.Message())
		}
		return true
	})
}

func TestBreaker(t *testing.T) {
	at := time.Unix(0, 0)
	var b breaker
	may := func(step string, want, wantTrial bool) {
		t.Helper()
		if ok, trial := b.allow(at); ok != want || trial != wantTrial {
			t.Errorf("%s: %v, trial %v; want %v, %v", step, ok, trial, want, wantTrial)
		}
	}
	for range breakAfter - 1 {
		b.result(at, false, false)
	}
	may("nearly", true, false)
	b.result(at, true, false)
	for range breakAfter - 1 {
		b.result(at, false, false)
	}
	may("a success began the count anew", true, false)
	b.result(at, false, false)
	may("open", false, false)
	for range 100 {
		b.result(at, false, false) // of requests that were under way
	}
	at = at.Add(breakFirst)
	may("trial", true, true)
	may("one trial at a time", false, false)
	b.result(at, false, true)
	at = at.Add(breakFirst)
	may("twice as long", false, false)
	at = at.Add(breakFirst)
	may("next trial", true, true)
	at = at.Add(2 * breakFirst)
	may("the trial never came back", true, true)
	b.result(at, true, true)
	may("closed", true, false)
	for range breakAfter {
		b.result(at, false, false)
	}
	for range 10 {
		at = at.Add(breakMax)
		may("never longer than the longest pause", true, true)
		b.result(at, false, true)
	}
	b.result(at, true, false)
	may("a late success closes it, too", true, false)
}
