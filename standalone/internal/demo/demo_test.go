package demo

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/standalone/internal/endtoend"
)

var testApp = app.App{ID: "1", Keys: []app.Key{{Key: "k", Secret: "s"}}}

// serve starts the page in front of a fallback that answers 418; api takes its publications.
func serve(t *testing.T, api http.HandlerFunc) string {
	t.Helper()
	page, err := New(testApp, api)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(page.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
	})))
	t.Cleanup(srv.Close)
	return srv.URL
}

func noAPI(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "unexpected", http.StatusInternalServerError)
}

func postForm(t *testing.T, target string, form url.Values) (int, string) {
	t.Helper()
	res, err := http.PostForm(target, form)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(body))
}

func TestServesOnlyItsOwnPaths(t *testing.T) {
	base := serve(t, noAPI)
	for path, want := range map[string]int{
		"/": http.StatusOK, "/demo/assets/app.js": http.StatusOK, "/demo/assets/style.css": http.StatusOK, "/demo/app": http.StatusOK,
		"/apps/1/events": http.StatusTeapot, "/app/k": http.StatusTeapot, "/other": http.StatusTeapot,
	} {
		res, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, res.StatusCode, want)
		}
		if own := res.Header.Get("Content-Security-Policy") != ""; own != (want == http.StatusOK) {
			t.Errorf("GET %s: content security policy there: %v", path, own)
		}
	}
}

func TestAuthSigns(t *testing.T) {
	base := serve(t, noAPI)
	for _, c := range []struct {
		name, channel, user string
		signed, data        string // what is signed; channel_data
		secret              bool
	}{
		{"private", "private-a", "ada", "1.2:private-a", "", false},
		{"presence", "presence-a", "ada", `1.2:presence-a:{"user_id":"ada","user_info":{"name":"Ada"}}`, `{"user_id":"ada","user_info":{"name":"Ada"}}`, false},
		{"presence of a signed-in user", "presence-a", "", "1.2:presence-a", "", false},
		{"encrypted", "private-encrypted-a", "ada", "1.2:private-encrypted-a", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			form := url.Values{"socket_id": {"1.2"}, "channel_name": {c.channel}, "user_id": {c.user}, "user_name": {"Ada"}}
			status, body := postForm(t, base+"/demo/auth", form)
			var got channelAuth
			if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
				t.Fatalf("%d %s", status, body)
			}
			if want := signature.Auth("k", "s", c.signed); got.Auth != want || got.ChannelData != c.data || (got.SharedSecret != "") != c.secret {
				t.Errorf("got %+v, want auth %s", got, want)
			}
		})
	}
}

func TestUserAuthSigns(t *testing.T) {
	base := serve(t, noAPI)
	status, body := postForm(t, base+"/demo/user-auth", url.Values{"socket_id": {"1.2"}, "user_id": {"ada"}, "watch": {"bela", "cleo"}})
	var got struct {
		Auth     string `json:"auth"`
		UserData string `json:"user_data"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	if got.Auth != signature.Auth("k", "s", signature.User("1.2", got.UserData)) {
		t.Errorf("the signature is not that of %s", got.UserData)
	}
	if !strings.Contains(got.UserData, `"watchlist":["bela","cleo"]`) {
		t.Errorf("user data %s has no watchlist", got.UserData)
	}
}

func TestRefusals(t *testing.T) {
	base := serve(t, noAPI)
	for _, c := range []struct {
		name, path, want string
		form             url.Values
	}{
		{"no socket id", "/demo/auth", "want digits.digits", url.Values{"channel_name": {"private-a"}}},
		{"a socket id that would sign something else", "/demo/auth", "want digits.digits", url.Values{"socket_id": {"1.2::user::"}, "channel_name": {"private-a"}}},
		{"a bad channel", "/demo/auth", "channel name holds", url.Values{"socket_id": {"1.2"}, "channel_name": {"private-a:b"}}},
		{"no user", "/demo/user-auth", "user_id is empty", url.Values{"socket_id": {"1.2"}}},
		{"not JSON", "/demo/publish", "not JSON", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := postForm(t, base+c.path, c.form)
			if status != http.StatusBadRequest || !strings.Contains(body, c.want) {
				t.Errorf("got %d %s, want 400 with %q", status, body, c.want)
			}
		})
	}
}

func TestOtherSitesGetNoSignature(t *testing.T) {
	base := serve(t, noAPI)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/demo/auth", strings.NewReader("socket_id=1.2&channel_name=private-a"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", "https://elsewhere.example")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("got %d, want 403", res.StatusCode)
	}
}

func TestPublishIsASignedCall(t *testing.T) {
	var got *http.Request
	var body []byte
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Write([]byte("{}"))
	})
	res, err := http.Post(base+"/demo/publish", "application/json", strings.NewReader(`{"channel":"news","event":"e","data":"{\"a\":1}","socket_id":"1.2"}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK || got.URL.Path != "/apps/1/events" {
		t.Fatalf("%d, path %s", res.StatusCode, got.URL.Path)
	}
	query := got.URL.Query()
	signed := query.Get("auth_signature")
	plain := "auth_key=k&auth_timestamp=" + query.Get("auth_timestamp") + "&auth_version=1.0&body_md5=" + signature.BodyMD5(body)
	if !signature.Verify("s", signature.Request("POST", "/apps/1/events", plain), signed) {
		t.Errorf("bad signature of %s", got.URL)
	}
	if want := `{"name":"e","data":"{\"a\":1}","channels":["news"],"socket_id":"1.2"}`; string(body) != want {
		t.Errorf("body %s, want %s", body, want)
	}
}

// The page's own decryption opens what a backend sealed, and nothing else.
func TestPageDecrypts(t *testing.T) {
	var key endtoend.MasterKey
	copy(key[:], "0123456789abcdef0123456789abcdef")
	for _, text := range []string{"", "x", `{"text":"grüße"}`, strings.Repeat("sixty-three bytes and then some; ", 20)} {
		sealed, err := key.Seal("private-encrypted-a", text)
		if err != nil {
			t.Fatal(err)
		}
		script := `import { open, fromBase64 } from './assets/secretbox.js';
			const [sealed, secret] = process.argv.slice(1);
			const { nonce, ciphertext } = JSON.parse(sealed);
			const [box, key] = [fromBase64(ciphertext), fromBase64(secret)];
			const clear = open(box, fromBase64(nonce), key);
			box[3] ^= 1;
			if (open(box, fromBase64(nonce), key) !== null) throw new Error('opened a changed box');
			process.stdout.write(clear === null ? '(null)' : clear);`
		cmd := exec.CommandContext(t.Context(), "node", "--no-warnings", "--input-type=module", "--eval", script, "--", sealed, key.SharedSecret("private-encrypted-a"))
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != text {
			t.Errorf("%.20q: got %q, %v", text, out, err)
		}
	}
}
