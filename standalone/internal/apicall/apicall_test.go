package apicall

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// cred and the signature below are the example of Pusher's HTTP API documentation, computed again.
var cred = Credentials{App: "3", Key: "278d425bdf160c739803", Secret: "7ad3773142a6692b25b8"}

func TestSignedQueryMatchesDocumentedExample(t *testing.T) {
	call, err := Trigger("3", Event{Name: "foo", Channels: []string{"project-3"}, Data: `{"some":"data"}`})
	if err != nil {
		t.Fatal(err)
	}
	call.Body = []byte(`{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}`) // the example's order of fields
	got, err := url.ParseQuery(call.SignedQuery(cred, time.Unix(1353088179, 0)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"auth_key": cred.Key, "auth_timestamp": "1353088179", "auth_version": "1.0",
		"body_md5":       "ec365a775a4cd0599faeb73354201b6f",
		"auth_signature": "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
	} {
		if got.Get(name) != want {
			t.Errorf("%s = %q, want %q", name, got.Get(name), want)
		}
	}
}

func TestTriggerLeavesDataAlone(t *testing.T) {
	call, err := Trigger("1", Event{Name: "e", Channels: []string{"c"}, Data: `{"html":"<b>&</b>"}`, SocketID: "1.2"})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"e","data":"{\"html\":\"<b>&</b>\"}","channels":["c"],"socket_id":"1.2"}`
	if string(call.Body) != want {
		t.Errorf("body %s, want %s", call.Body, want)
	}
}

// The line must survive a shell: quotes in the body, and what curl would do to data.
func TestCurlSurvivesTheShell(t *testing.T) {
	call, err := Trigger("1", Event{Name: "it's", Channels: []string{"c"}, Data: "a\n$HOME `x`"})
	if err != nil {
		t.Fatal(err)
	}
	line := call.Curl("http://127.0.0.1:1/", cred, time.Unix(1, 0))
	out, err := exec.Command("sh", "-c", "curl() { for a; do printf '%s\\0' \"$a\"; done; }; "+line).Output()
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if len(args) != 5 || args[3] != string(call.Body) || !strings.HasPrefix(args[4], "http://127.0.0.1:1/apps/1/events?auth_key=") {
		t.Errorf("curl got %q", args)
	}
}

func TestCurlNamesTheMethod(t *testing.T) {
	for method, want := range map[string]string{
		http.MethodGet: "curl 'http", http.MethodPost: "curl -X POST 'http", http.MethodDelete: "curl -X DELETE 'http",
	} {
		if line := (Call{Method: method, Path: "/"}).Curl("http://h", cred, time.Unix(1, 0)); !strings.HasPrefix(line, want) {
			t.Errorf("%s: %s", method, line)
		}
	}
}

func TestDo(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("info") != "a b&c" || r.URL.Query().Get("auth_signature") == "" {
			http.Error(w, "bad query "+r.URL.RawQuery, http.StatusTeapot)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		w.Write([]byte("fine"))
	}))
	defer srv.Close()
	call := Call{Method: http.MethodGet, Path: "/apps/3/channels", Query: map[string]string{"info": "a b&c"}}
	status, body, err := call.Do(t.Context(), srv.URL, cred)
	if err != nil || status != http.StatusAccepted || string(body) != "fine" {
		t.Errorf("got %d %q %v", status, body, err)
	}
}
