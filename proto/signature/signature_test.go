package signature

import (
	"strings"
	"testing"
)

const (
	key    = "278d425bdf160c739803"
	secret = "7ad3773142a6692b25b8"
)

// The vectors of the Pusher documentation ("auth signatures", "REST API
// authentication"), recomputed independently. The documentation prints
// afaed369... for the presence example, which is the signature for the name
// "Mr. Pusher": its text was changed and its digest was not.
func TestGoldenVectors(t *testing.T) {
	const body = `{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}`
	const bodyMD5 = "ec365a775a4cd0599faeb73354201b6f"
	if got := BodyMD5([]byte(body)); got != bodyMD5 {
		t.Errorf("body_md5 is %s, want %s", got, bodyMD5)
	}
	for _, c := range []struct{ name, text, wantText, signature string }{
		{
			"private channel", Channel("1234.1234", "private-foobar", ""),
			"1234.1234:private-foobar",
			"58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
		},
		{
			"presence channel", Channel("1234.1234", "presence-foobar", `{"user_id":10,"user_info":{"name":"Mr. Channels"}}`),
			`1234.1234:presence-foobar:{"user_id":10,"user_info":{"name":"Mr. Channels"}}`,
			"31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
		},
		{
			"presence channel, as documented before", Channel("1234.1234", "presence-foobar", `{"user_id":10,"user_info":{"name":"Mr. Pusher"}}`),
			`1234.1234:presence-foobar:{"user_id":10,"user_info":{"name":"Mr. Pusher"}}`,
			"afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c",
		},
		{
			"user", User("1234.1234", `{"id":"12345"}`),
			`1234.1234::user::{"id":"12345"}`,
			"4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
		},
		{
			"request", Request("POST", "/apps/3/events", "auth_key="+key+"&auth_timestamp=1353088179&auth_version=1.0&body_md5="+bodyMD5),
			"POST\n/apps/3/events\nauth_key=" + key + "&auth_timestamp=1353088179&auth_version=1.0&body_md5=" + bodyMD5,
			"da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.text != c.wantText {
				t.Errorf("string to sign is %q, want %q", c.text, c.wantText)
			}
			if got := Sign(secret, c.text); got != c.signature {
				t.Errorf("signature is %s, want %s", got, c.signature)
			}
			if !Verify(secret, c.text, c.signature) {
				t.Error("the signature does not verify")
			}
			for name, wrong := range map[string]string{
				"of another text": Sign(secret, c.text+" "), "of another secret": Sign("other", c.text),
				"upper case": strings.ToUpper(c.signature), "cut": c.signature[:63], "empty": "",
			} {
				if Verify(secret, c.text, wrong) {
					t.Errorf("a signature that is %s verifies", name)
				}
			}
		})
	}
}

// Channel data are signed on private channels too, whenever they are sent.
func TestChannelDataOnPrivateChannels(t *testing.T) {
	if got := Channel("1.2", "private-a", `{"user_id":1}`); got != `1.2:private-a:{"user_id":1}` {
		t.Errorf("string to sign is %q", got)
	}
}

// What Python's SDK sends with every GET.
func TestBodyMD5OfNothing(t *testing.T) {
	if got := BodyMD5(nil); got != "d41d8cd98f00b204e9800998ecf8427e" {
		t.Errorf("body_md5 of nothing is %s", got)
	}
}

func TestAuth(t *testing.T) {
	auth := Auth(key, secret, Channel("1234.1234", "private-foobar", ""))
	gotKey, signature, ok := SplitAuth(auth)
	if !ok || gotKey != key || !Verify(secret, "1234.1234:private-foobar", signature) {
		t.Errorf("%s splits into %q and %q, %v", auth, gotKey, signature, ok)
	}
	for auth, want := range map[string]bool{"": false, "key": false, "key:": true, ":sig": true} {
		if _, _, ok := SplitAuth(auth); ok != want {
			t.Errorf("%q splits: %v, want %v", auth, ok, want)
		}
	}
}

// TestNoSecret: with an empty secret everybody can sign, so nothing is right.
func TestNoSecret(t *testing.T) {
	if text := "POST\n/apps/3/events\n"; Verify("", text, Sign("", text)) {
		t.Error("a signature under the empty secret is taken")
	}
}
