package client

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/signature"
)

func TestRequestsAreSigned(t *testing.T) {
	h := &HTTP{app: App{Addr: "127.0.0.1:1", ID: "1001", Key: "k", Secret: "s"}, body: []byte(`{"name":"x"}`)}
	h.md5 = signature.BodyMD5(h.body)
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(h.appendRequest(nil, time.Unix(1_700_000_000, 0)))))
	if err != nil {
		t.Fatal(err)
	}
	query := req.URL.Query()
	given := query.Get("auth_signature")
	query.Del("auth_signature")
	sorted, err := url.QueryUnescape(query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !signature.Verify("s", signature.Request(req.Method, req.URL.Path, sorted), given) {
		t.Errorf("signature %s of %s %s is wrong", given, req.Method, req.URL)
	}
	if req.ContentLength != int64(len(h.body)) {
		t.Errorf("Content-Length is %d, want %d", req.ContentLength, len(h.body))
	}
}
