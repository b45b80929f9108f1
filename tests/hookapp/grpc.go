package hookapp

import (
	"encoding/json"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/carillon-rt/carillon/tests/wire"
)

// kinds are the questions by the method that asks them.
var kinds = map[protoreflect.Name]string{
	"Connect": "connect", "Refresh": "refresh", "Subscribe": "subscribe", "SubRefresh": "sub_refresh", "Publish": "publish", "RPC": "rpc",
	"NotifyCacheEmpty": "cache_empty",
}

// grpcApp translates between the messages of CentrifugoProxy and their JSON.
type grpcApp struct {
	app   *App
	proxy *wire.Service
}

func (g *grpcApp) serve(_ any, stream grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(stream)
	method := g.proxy.Method(full)
	if method == nil || kinds[method.Name()] == "" {
		return status.Errorf(codes.Unimplemented, "unknown method %s", full)
	}
	request, response := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	if err := stream.RecvMsg(request); err != nil {
		return err
	}
	raw, err := json.Marshal(toJSON(request))
	if err != nil {
		return err
	}
	if err := fromJSON(response, g.app.answer(kinds[method.Name()], raw)); err != nil {
		return err
	}
	return stream.SendMsg(response)
}

// toJSON gives the fields that are set; bytes hold JSON.
func toJSON(m protoreflect.Message) map[string]any {
	out := map[string]any{}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsList():
			var list []string
			for i := range v.List().Len() {
				list = append(list, v.List().Get(i).String())
			}
			out[string(f.Name())] = list
		case f.Kind() == protoreflect.BytesKind:
			out[string(f.Name())] = json.RawMessage(v.Bytes())
		default:
			out[string(f.Name())] = v.Interface()
		}
		return true
	})
	return out
}

// fromJSON sets the fields that an object has.
func fromJSON(m protoreflect.Message, raw []byte) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return err
	}
	for name, raw := range object {
		f := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if f == nil {
			return fmt.Errorf("%s has no field %s", m.Descriptor().Name(), name)
		}
		if err := setField(m, f, raw); err != nil {
			return fmt.Errorf("%s.%s: %w", m.Descriptor().Name(), name, err)
		}
	}
	return nil
}

func setField(m protoreflect.Message, f protoreflect.FieldDescriptor, raw json.RawMessage) error {
	switch {
	case f.IsMap():
		var entries map[string]json.RawMessage
		if err := json.Unmarshal(raw, &entries); err != nil {
			return err
		}
		to := m.Mutable(f).Map()
		for key, raw := range entries {
			if err := fromJSON(to.Mutable(wire.Key(key)).Message(), raw); err != nil {
				return err
			}
		}
		return nil
	case f.IsList():
		var list []string
		if err := json.Unmarshal(raw, &list); err != nil {
			return err
		}
		for _, v := range list {
			m.Mutable(f).List().Append(protoreflect.ValueOfString(v))
		}
		return nil
	case f.Kind() == protoreflect.MessageKind:
		return fromJSON(m.Mutable(f).Message(), raw)
	}
	v, err := scalar(f.Kind(), raw)
	if err == nil {
		m.Set(f, v)
	}
	return err
}

func scalar(kind protoreflect.Kind, raw json.RawMessage) (v protoreflect.Value, err error) {
	switch kind {
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(raw), nil
	case protoreflect.StringKind:
		var s string
		err = json.Unmarshal(raw, &s)
		return protoreflect.ValueOfString(s), err
	case protoreflect.BoolKind:
		var b bool
		err = json.Unmarshal(raw, &b)
		return protoreflect.ValueOfBool(b), err
	case protoreflect.Int64Kind:
		var n int64
		err = json.Unmarshal(raw, &n)
		return protoreflect.ValueOfInt64(n), err
	case protoreflect.Uint32Kind:
		var n uint32
		err = json.Unmarshal(raw, &n)
		return protoreflect.ValueOfUint32(n), err
	}
	return v, fmt.Errorf("fields of kind %s are not for applications", kind)
}
