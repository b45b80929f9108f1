package decide_test

import (
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/authsvc/internal/decide"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/signature"
)

// The key pair of the Pusher documentation's examples.
const (
	docKey    = "278d425bdf160c739803"
	docSecret = "7ad3773142a6692b25b8"
)

func testApps(t testing.TB) *app.Registry {
	t.Helper()
	apps, err := app.NewRegistry([]app.App{
		{
			ID: "3", Keys: []app.Key{
				{Key: docKey, Secret: docSecret},
				{Key: "second", Secret: "s2"},
				{Key: "old", Secret: "s3", Disabled: true},
				{Key: "bare"},
			},
			Policies: []app.Policy{{Match: "staff*", Private: true}},
		},
		{ID: "4", Keys: []app.Key{{Key: "other", Secret: "other-secret"}}},
		{ID: "5", Disabled: true, Keys: []app.Key{{Key: "off", Secret: "x"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return apps
}

// auth signs as the application would.
func auth(key, secret, channel, data string) string {
	return signature.Auth(key, secret, signature.Channel("1234.1234", channel, data))
}

func TestSubscribe(t *testing.T) {
	member10 := `{"user_id":10,"user_info":{"name":"Mr. Channels"}}`
	long := strings.Repeat("x", 129)
	fat := `{"user_id":"1","user_info":"` + strings.Repeat("x", 1023) + `"}`
	anna := &authz.User{ID: "7", RawID: `"7"`, Info: `{"n":1}`, Watchlist: []string{"8"}}
	for _, tc := range []struct {
		name    string
		req     authz.Subscribe
		allow   bool
		reason  authz.Reason
		user    *authz.User
		message string // a part of it
	}{
		{name: "golden vector, private", allow: true, req: authz.Subscribe{
			Channel: "private-foobar", Auth: docKey + ":58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
		}},
		{
			name: "golden vector, presence, number id", allow: true,
			req: authz.Subscribe{
				Channel: "presence-foobar", ChannelData: member10,
				Auth: docKey + ":31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
			},
			user: &authz.User{ID: "10", RawID: "10", Info: `{"name":"Mr. Channels"}`},
		},
		{name: "stale digest of the public docs", reason: authz.BadSignature, req: authz.Subscribe{
			Channel: "presence-foobar", ChannelData: member10,
			Auth: docKey + ":afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c",
		}, message: `1234.1234:presence-foobar:` + member10},
		{name: "public channel", allow: true, req: authz.Subscribe{Channel: "news"}},
		{name: "private channel with channel_data signs it", allow: true, req: authz.Subscribe{
			Channel: "private-a", ChannelData: "{}", Auth: auth(docKey, docSecret, "private-a", "{}"),
		}},
		{name: "private channel, channel_data not signed", reason: authz.BadSignature, req: authz.Subscribe{
			Channel: "private-a", ChannelData: "{}", Auth: auth(docKey, docSecret, "private-a", ""),
		}},
		{name: "private-encrypted", allow: true, req: authz.Subscribe{
			Channel: "private-encrypted-a", Auth: auth(docKey, docSecret, "private-encrypted-a", ""),
		}},
		{name: "protected by policy, no auth", reason: authz.BadSignature, req: authz.Subscribe{Channel: "staff-1"}, message: "auth is missing"},
		{name: "protected by policy", allow: true, req: authz.Subscribe{
			Channel: "staff-1", Auth: auth(docKey, docSecret, "staff-1", ""),
		}},
		{name: "the second key of the app", allow: true, req: authz.Subscribe{
			Channel: "private-a", Auth: auth("second", "s2", "private-a", ""),
		}},
		{name: "a key with the other key's secret", reason: authz.BadSignature, req: authz.Subscribe{
			Channel: "private-a", Auth: auth("second", docSecret, "private-a", ""),
		}},
		{name: "a disabled key", reason: authz.BadSignature, message: "disabled", req: authz.Subscribe{
			Channel: "private-a", Auth: auth("old", "s3", "private-a", ""),
		}},
		{name: "another app's key", reason: authz.BadSignature, message: "not a key of this app", req: authz.Subscribe{
			Channel: "private-a", Auth: auth("other", "other-secret", "private-a", ""),
		}},
		{name: "a key without a secret", reason: authz.Unavailable, req: authz.Subscribe{
			Channel: "private-a", Auth: auth("bare", "", "private-a", ""),
		}},
		{name: "upper-case hex", reason: authz.BadSignature, req: authz.Subscribe{
			Channel: "private-foobar", Auth: docKey + ":58DF8B0C36D6982B82C3ECF6B4662E34FE8C25BBA48F5369F135BF843651C3A4",
		}},
		{name: "auth without a colon", reason: authz.BadSignature, message: "want", req: authz.Subscribe{Channel: "private-a", Auth: "nonsense"}},
		{name: "presence without data or user", reason: authz.BadData, message: "channel_data is missing", req: authz.Subscribe{
			Channel: "presence-a", Auth: auth(docKey, docSecret, "presence-a", ""),
		}},
		{
			name: "presence as the signed-in user", allow: true, user: &authz.User{ID: "7", RawID: `"7"`, Info: `{"n":1}`},
			req: authz.Subscribe{Channel: "presence-a", User: anna, Auth: auth(docKey, docSecret, "presence-a", "")},
		},
		{
			name: "channel_data goes before the signed-in user", allow: true, user: &authz.User{ID: "9", RawID: `"9"`},
			req: authz.Subscribe{
				Channel: "presence-a", User: anna, ChannelData: `{"user_id":"9"}`,
				Auth: auth(docKey, docSecret, "presence-a", `{"user_id":"9"}`),
			},
		},
		{
			name: "raw bytes are kept", allow: true, user: &authz.User{ID: "1.0", RawID: "1.0", Info: "{ \"a\":\"<&>\\u00e9\",\n\"a\":1e2 }"},
			req: signed("presence-a", "{ \"user_id\" : 1.0 , \"user_info\" : { \"a\":\"<&>\\u00e9\",\n\"a\":1e2 } }"),
		},
		{
			name: "escapes in an id", allow: true, user: &authz.User{ID: "10", RawID: `"\u00310"`},
			req: signed("presence-a", `{"user_id":"\u00310"}`),
		},
		{name: "field names are exact", reason: authz.BadData, message: "no user_id", req: signed("presence-a", `{"USER_ID":"1"}`)},
		{name: "empty id", reason: authz.BadData, message: "empty", req: signed("presence-a", `{"user_id":""}`)},
		{name: "null id", reason: authz.BadData, message: "neither", req: signed("presence-a", `{"user_id":null}`)},
		{name: "object id", reason: authz.BadData, message: "neither", req: signed("presence-a", `{"user_id":{}}`)},
		{name: "no id", reason: authz.BadData, message: "no user_id", req: signed("presence-a", `{}`)},
		{name: "not an object", reason: authz.BadData, message: "not a JSON object", req: signed("presence-a", `[1]`)},
		{name: "null", reason: authz.BadData, message: "not a JSON object", req: signed("presence-a", `null`)},
		{name: "cut", reason: authz.BadData, message: "not a JSON object", req: signed("presence-a", `{"user_id":"1"`)},
		{name: "not UTF-8", reason: authz.BadData, message: "UTF-8", req: signed("presence-a", "{\"user_id\":\"\xff\"}")},
		{name: "long id", reason: authz.TooLarge, message: "at most 128", req: signed("presence-a", `{"user_id":"`+long+`"}`)},
		{name: "fat user_info", reason: authz.TooLarge, message: "at most 1024", req: signed("presence-a", fat)},
		{name: "own user channel", allow: true, req: authz.Subscribe{Channel: "#server-to-user-7", User: anna}},
		{name: "another's user channel", reason: authz.Forbidden, req: authz.Subscribe{Channel: "#server-to-user-8", User: anna}},
		{name: "user channel of nobody", reason: authz.Forbidden, req: authz.Subscribe{Channel: "#server-to-user-8"}},
		{name: "reserved name", reason: authz.Forbidden, req: authz.Subscribe{Channel: "#online-7", User: anna}},
		{name: "a colon makes the signature ambiguous", reason: authz.Forbidden, req: authz.Subscribe{
			Channel: `private-a:{"user_id":1}`, Auth: auth(docKey, docSecret, "private-a", `{"user_id":1}`),
		}},
		{name: "no channel", reason: authz.BadData, req: authz.Subscribe{}},
		{name: "unknown app", reason: authz.Unavailable, req: authz.Subscribe{App: "99", Channel: "news"}},
		{name: "disabled app", reason: authz.Forbidden, req: authz.Subscribe{App: "5", Channel: "news"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.req.App == "" {
				tc.req.App = "3"
			}
			tc.req.SocketID, tc.req.Key = "1234.1234", docKey
			check(t, decider(testApps(t)).Subscribe(t.Context(), &tc.req), tc.allow, tc.reason, tc.user, tc.message)
		})
	}
}

func signed(channel, data string) authz.Subscribe {
	return authz.Subscribe{Channel: channel, ChannelData: data, Auth: auth(docKey, docSecret, channel, data)}
}

func check(t *testing.T, d authz.Decision, allow bool, reason authz.Reason, user *authz.User, message string) {
	t.Helper()
	if d.Allow != allow || d.Reason != reason || d.Temporary != (reason == authz.Unavailable) {
		t.Fatalf("decision %+v, want allow %v, reason %q", d, allow, reason)
	}
	if !strings.Contains(d.Message, message) || (!allow && d.Message == "") {
		t.Errorf("message %q does not hold %q", d.Message, message)
	}
	for _, secret := range []string{docSecret, "other-secret"} {
		if strings.Contains(d.Message, secret) {
			t.Errorf("message %q holds a secret", d.Message)
		}
	}
	if user == nil {
		return
	}
	if d.User == nil || d.User.ID != user.ID || d.User.RawID != user.RawID || d.User.Info != user.Info ||
		strings.Join(d.User.Watchlist, ",") != strings.Join(user.Watchlist, ",") {
		t.Errorf("user %+v, want %+v", d.User, user)
	}
}

func TestSignIn(t *testing.T) {
	for _, tc := range []struct {
		name    string
		data    string
		auth    string // "": signed properly
		allow   bool
		reason  authz.Reason
		user    *authz.User
		message string
	}{
		{
			name: "golden vector", data: `{"id":"12345"}`, allow: true,
			auth: docKey + ":4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
			user: &authz.User{ID: "12345", RawID: `"12345"`},
		},
		{name: "number id", data: `{"id":1}`, allow: true, user: &authz.User{ID: "1", RawID: "1"}},
		{
			name: "info and watchlist", data: `{"id":"a","user_info":{"x":[1, 2]},"watchlist":["b",2,"b"]}`, allow: true,
			user: &authz.User{ID: "a", RawID: `"a"`, Info: `{"x":[1, 2]}`, Watchlist: []string{"b", "2"}},
		},
		{name: "null watchlist", data: `{"id":"a","watchlist":null}`, allow: true, user: &authz.User{ID: "a", RawID: `"a"`}},
		{name: "bad watchlist", data: `{"id":"a","watchlist":"b"}`, reason: authz.BadData, message: "watchlist"},
		{name: "bad watchlist entry", data: `{"id":"a","watchlist":["b",true]}`, reason: authz.BadData, message: "watchlist[1]"},
		{name: "no id", data: `{"user_id":"a"}`, reason: authz.BadData, message: "no id"},
		{name: "empty", data: ``, reason: authz.BadData, message: "not a JSON object"},
		{name: "long id", data: `{"id":"` + strings.Repeat("x", 129) + `"}`, reason: authz.TooLarge},
		{name: "unsigned", data: `{"id":"a"}`, auth: docKey + ":", reason: authz.BadSignature, message: `1234.1234::user::{"id":"a"}`},
		{name: "other app's key", data: `{"id":"a"}`, auth: "other:00", reason: authz.BadSignature},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := authz.SignIn{App: "3", Key: docKey, SocketID: "1234.1234", UserData: tc.data, Auth: tc.auth}
			if req.Auth == "" {
				req.Auth = signature.Auth(docKey, docSecret, signature.User(req.SocketID, req.UserData))
			}
			check(t, decide.SignIn(testApps(t), &req), tc.allow, tc.reason, tc.user, tc.message)
		})
	}
}

// FuzzSubscribe: nothing panics, and nothing protected is allowed without a
// signature that an independent computation finds right.
func FuzzSubscribe(f *testing.F) {
	f.Add("private-foobar", docKey+":58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4", "", "", "7")
	f.Add("presence-a", "", `{"user_id":10,"user_info":{"name":"x"}}`, "k", "")
	f.Add("staff-x", "bare:", "{}", "#", "")
	f.Add("#server-to-user-7", "", "", "", "7")
	apps := testApps(f)
	f.Fuzz(func(t *testing.T, name, auth, data, sign, user string) {
		req := authz.Subscribe{App: "3", Key: docKey, SocketID: "1234.1234", Channel: name, Auth: auth, ChannelData: data}
		if sign != "" {
			req.Auth = docKey + ":" + signature.Sign(docSecret, req.SocketID+":"+sign)
		}
		if user != "" {
			req.User = &authz.User{ID: user, RawID: `"x"`}
		}
		d := decider(apps).Subscribe(t.Context(), &req)
		if !d.Allow {
			if d.Reason == "" || d.Message == "" {
				t.Fatalf("refusal without a reason: %+v", d)
			}
			return
		}
		kind := apps.ByID("3").Effective(name)
		if !kind.Private && !strings.HasPrefix(name, "#") {
			return
		}
		if name == "#server-to-user-"+user {
			return
		}
		text := req.SocketID + ":" + name
		if data != "" {
			text += ":" + data
		}
		if req.Auth != docKey+":"+signature.Sign(docSecret, text) && req.Auth != "second:"+signature.Sign("s2", text) {
			t.Fatalf("allowed %q with auth %q", text, req.Auth)
		}
		if kind.Presence && (d.User == nil || d.User.ID == "") {
			t.Fatalf("presence without a member: %+v", d)
		}
	})
}

func BenchmarkSubscribe(b *testing.B) {
	data := `{"user_id":"10","user_info":{"name":"Mr. Channels"}}`
	asks := decider(testApps(b))
	for _, bc := range []struct {
		name string
		req  authz.Subscribe
	}{
		{"private", authz.Subscribe{Channel: "private-foobar", Auth: auth(docKey, docSecret, "private-foobar", "")}},
		{"presence", authz.Subscribe{Channel: "presence-a", ChannelData: data, Auth: auth(docKey, docSecret, "presence-a", data)}},
	} {
		bc.req.App, bc.req.SocketID = "3", "1234.1234"
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := asks.Subscribe(b.Context(), &bc.req); !d.Allow {
					b.Fatal(d)
				}
			}
		})
	}
}
