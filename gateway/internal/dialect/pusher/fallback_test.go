package pusher

import (
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
)

func TestRequestsOfFallbacks(t *testing.T) {
	fallback := Fallback{New("/ws")}
	sockJS := SockJS{fallback}
	type want struct {
		of      dialect.HTTP // nil for nobody's
		kind    dialect.RequestKind
		session string
		key     string
		status  int
	}
	for request, want := range map[string]want{
		"POST /pusher/app/k/12/abc/xhr_streaming?protocol=7":       {fallback, dialect.Stream, "pusher/k/12/abc", "k", 0},
		"POST /app/k%20k/12/abc/xhr?protocol=7":                    {fallback, dialect.Poll, "pusher/k k/12/abc", "k k", 0},
		"POST /ws/app/k/12/abc/xhr_send?t=1&n=2":                   {fallback, dialect.Send, "pusher/k/12/abc", "k", 0},
		"GET /pusher/app/k/12/abc/xhr_send":                        {fallback, dialect.Fixed, "", "", 405},
		"POST /pusher/app/k/12/abc/eventsource":                    {fallback, dialect.Fixed, "", "", 404},
		"POST /pusher/app/k//abc/xhr":                              {fallback, dialect.Fixed, "", "", 404},
		"POST /pusher/app/k/1/" + strings.Repeat("x", 64) + "/xhr": {fallback, dialect.Fixed, "", "", 404},
		"GET /pusher/timeline/v2/jsonp/1":                          {fallback, dialect.Fixed, "", "", 200},
		"GET /timeline/v2/xhr/2?x":                                 {fallback, dialect.Fixed, "", "", 200},
		"POST /pusher/12/abc/xhr_streaming":                        {sockJS, dialect.Stream, "sockjs/12/abc", "", 0},
		"POST /ws/12/abc/xhr":                                      {sockJS, dialect.Poll, "sockjs/12/abc", "", 0},
		"POST /pusher/12/abc/xhr_send":                             {sockJS, dialect.Send, "sockjs/12/abc", "", 0},
		"GET /pusher/info?t=1":                                     {sockJS, dialect.Fixed, "", "", 200},
		"GET /info":                                                {},
		"POST /12/abc/xhr":                                         {}, // no prefix: it could be anybody's
		"GET /app/k?protocol=7":                                    {}, // a WebSocket's
		"GET /pusher/app/k":                                        {},
		"POST /apps/1/events":                                      {},
		"POST /pusherapp/k/12/abc/xhr":                             {},
		"POST /ws/apps/1/events":                                   {},
		"POST /pusher/auth":                                        {},
	} {
		method, target, _ := strings.Cut(request, " ")
		path, query, _ := strings.Cut(target, "?")
		for _, d := range []dialect.HTTP{fallback, sockJS} {
			req, ok := d.Request(&httphead.Head{Method: method, Path: path, RawQuery: query})
			if ok != (d == want.of) {
				t.Errorf("%s: %s says %v", request, d.Name(), ok)
			}
			if !ok || want.of == nil {
				continue
			}
			if req.Kind != want.kind || req.Status != want.status || want.kind != dialect.Fixed && (req.Session != want.session || req.Hello.Key != want.key) {
				t.Errorf("%s: %+v", request, req)
			}
		}
	}
}

func TestPosts(t *testing.T) {
	f, send := Fallback{New("")}, &dialect.Request{Kind: dialect.Send}
	p, err := f.Post(send, []byte(`["{\"event\":\"pusher:ping\"}","\u00e9"]`))
	if err != nil || len(p.Messages) != 2 || string(p.Messages[0]) != `{"event":"pusher:ping"}` || string(p.Messages[1]) != "é" {
		t.Errorf("%q, %v", p.Messages, err)
	}
	if p, err = f.Post(send, []byte("[]")); err != nil || len(p.Messages) != 0 { // a heartbeat
		t.Errorf("%q, %v", p.Messages, err)
	}
	for _, bad := range []string{"", "{}", "[1]", `["x"`, `"x"`} {
		if p, err = f.Post(send, []byte(bad)); err == nil {
			t.Errorf("%q was taken for %q", bad, p.Messages)
		}
	}
	if p, err = f.Post(&dialect.Request{Kind: dialect.Stream}, []byte("whatever")); err != nil || p.Messages != nil {
		t.Errorf("a stream hears %q, %v", p.Messages, err)
	}
}
