package decide_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/authsvc/internal/hook"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

// FuzzAnswers: whatever a hook answers, a decision has what it must have, and
// what goes to a client that speaks JSON is JSON on one line.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `{"result":null}`, `{"result":{}}`, `{"error":{"code":1000}}`, `{"disconnect":{"code":0}}`,
		`{"result":{"user":"7","expire_at":-1,"info":{"a": 1},"b64data":"ewp9","channels":[""],"subs":{"x":{"b64data":"ewp9"},"#online-1":null}}}`,
		`{"result":{"expired":false,"expire_at":99999999999,"meta":" ","tags":{"":""},"allow":["pub"],"override":{"presence":null}}}`,
	} {
		f.Add(seed)
	}
	apps := centrifugo(f, func(a *app.App) {
		a.Centrifugo.ConnectHook, a.Centrifugo.RefreshHook = "backend", "backend"
		a.Centrifugo.RPC = []app.RPC{{Match: "*", Hook: "backend"}}
	})
	p := &application{}
	d := deciderOn(apps, p) // one for all, as it compiles the conditions
	f.Fuzz(func(t *testing.T, answer string) {
		answers := map[hook.Kind]string{}
		for _, kind := range []hook.Kind{hook.Connect, hook.Refresh, hook.Subscribe, hook.SubRefresh, hook.Publish, hook.RPC} {
			answers[kind] = answer
		}
		*p = application{answers: answers}
		who := client("7")
		ctx := t.Context()
		connect, refresh := d.Connect(ctx, &authz.Connect{Client: who}), d.Refresh(ctx, &authz.Refresh{Client: who})
		subscribe, subRefresh := d.Subscribe(ctx, &authz.Subscribe{Client: &who, Channel: "hooked:1"}), d.SubRefresh(ctx, &authz.SubRefresh{Client: who, Channel: "hooked:1"})
		publish, rpc := d.Publish(ctx, &authz.Publish{Client: who, Channel: "hooked:1"}), d.RPC(ctx, &authz.RPC{Client: who, Method: "x"})
		for _, got := range []authz.Decision{connect, refresh} {
			if got.Allow && got.Credentials == nil {
				t.Errorf("%q allows without credentials", answer)
			}
			if c := got.Credentials; c != nil {
				oneLine(t, answer, c.Info, c.Meta, string(c.Data))
				for name, g := range c.Subs {
					if name == "" || strings.HasPrefix(name, "#online-") {
						t.Errorf("%q subscribes to %q", answer, name)
					}
					oneLine(t, answer, g.Info, string(g.Data))
				}
			}
		}
		for _, got := range []authz.Decision{subscribe, subRefresh} {
			if got.Allow && got.Grant == nil {
				t.Errorf("%q allows without a grant", answer)
			}
			if got.Grant != nil {
				oneLine(t, answer, got.Grant.Info, string(got.Grant.Data))
			}
		}
		if publish.Allow {
			oneLine(t, answer, string(publish.Edited.Data))
		}
		oneLine(t, answer, string(rpc.Reply))
		for _, got := range []authz.Decision{connect, refresh, subscribe, subRefresh, publish, rpc} {
			if !got.Allow && (got.Reason == "" || got.Message == "") {
				t.Errorf("%q is refused without a word: %+v", answer, got)
			}
			if v := got.Verdict; v != nil && v.Disconnect && (v.Code < 3000 || v.Code > 4999) {
				t.Errorf("%q disconnects with %d", answer, v.Code)
			}
		}
	})
}

func oneLine(t *testing.T, answer string, texts ...string) {
	for _, text := range texts {
		if text != "" && (!json.Valid([]byte(text)) || strings.ContainsAny(text, "\r\n")) {
			t.Errorf("%q gives %q", answer, text)
		}
	}
}
