package signature

import (
	"net/url"
	"testing"
	"time"
)

// TestSignedQuery: the documented example, computed again, and a call with parameters of its own.
func TestSignedQuery(t *testing.T) {
	tests := []struct {
		name string
		call Call
		want map[string]string
	}{
		{
			"with a body",
			Call{Method: "POST", Path: "/apps/3/events", Body: []byte(`{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}`)},
			map[string]string{"body_md5": "ec365a775a4cd0599faeb73354201b6f", "auth_signature": "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"},
		},
		{
			"with parameters",
			Call{Method: "GET", Path: "/apps/3/channels", Params: map[string]string{"info": "user_count", "Filter_by_prefix": "a&b "}},
			map[string]string{
				"info": "user_count", "Filter_by_prefix": "a&b ", "body_md5": "",
				"auth_signature": Sign("7ad3773142a6692b25b8", "GET\n/apps/3/channels\nfilter_by_prefix=a&b &auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&info=user_count"),
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := url.ParseQuery(tt.call.SignedQuery("278d425bdf160c739803", "7ad3773142a6692b25b8", time.Unix(1353088179, 0)))
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range tt.want {
				if got.Get(name) != want {
					t.Errorf("%s is %q, want %q", name, got.Get(name), want)
				}
			}
			if _, ours := tt.call.Params["auth_key"]; ours {
				t.Error("the caller's parameters were changed")
			}
		})
	}
}
