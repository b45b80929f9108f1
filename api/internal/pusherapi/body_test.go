package pusherapi

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"
)

// FuzzDecodeEvent checks the decoder against encoding/json, and that it never panics.
func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(`{"name":"e","channels":["a","b"],"data":"{\"x\":1}","socket_id":"1.2","info":"user_count"}`))
	f.Add([]byte(` { "name" : "e" , "channel" : "a" , "data" : { "x" : [ 1 , "]" ] } , "y" : -1e3 } `))
	f.Add([]byte(`{"na\u006de":"\ud83d\ude00\\\"","data":null,"name":null}`))
	f.Add([]byte(`[{"batch":[]}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		sent := bytes.Clone(body)
		ev, err := decodeEvent(body)
		if !bytes.Equal(sent, body) {
			t.Fatal("the body was changed")
		}
		if _, err := decodeBatch(body, 10); err == nil && !json.Valid(body) {
			t.Fatal("a batch that is not JSON was accepted")
		}
		if err != nil {
			return
		}
		var members map[string]json.RawMessage
		if json.Unmarshal(body, &members) != nil || !utf8.Valid(body) {
			t.Fatalf("accepted %q", body)
		}
		check := func(name, got string) {
			var want string
			if json.Unmarshal(members[name], &want) == nil && got != want {
				t.Fatalf("%s is %q, want %q", name, got, want)
			}
		}
		check("name", ev.name)
		check("socket_id", ev.socketID)
		check("info", ev.info)
		check("idempotency_key", ev.idempotencyKey)
		if !ev.rawData {
			check("data", string(ev.data))
		} else if !sameJSON(ev.data, members["data"]) {
			t.Fatalf("data is %s, want %s", ev.data, members["data"])
		}
	})
}

func sameJSON(a, b []byte) bool {
	var left, right any
	return json.Unmarshal(a, &left) == nil && json.Unmarshal(b, &right) == nil && reflect.DeepEqual(left, right)
}
