package rules

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/proto/app"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestHolds(t *testing.T) {
	q := &Question{
		Channel: "chat:7", User: "7", Client: "c1", Meta: `{"roles":["a","b"],"age":30,"vip":true}`, Info: `{"name":"x"}`,
		Claims: []byte(`{"role":"boss","n":3}`), Data: []byte(`{"text":"hello"}`),
	}
	for text, want := range map[string]bool{
		`true`:                                   true,
		`false`:                                  false,
		`user != ""`:                             true,
		`channel == "chat:" + user`:              true,
		`channel.startsWith("news:")`:            false,
		`channel.matches("^chat:[0-9]+$")`:       true,
		`"b" in meta.roles`:                      true,
		`"z" in meta.roles`:                      false,
		`meta.age >= 18`:                         true,
		`meta.vip`:                               true,
		`has(meta.vip) && meta.vip`:              true,
		`has(meta.nothing)`:                      false,
		`info.name == "x" && client == "c1"`:     true,
		`claims.role == "boss" && claims.n == 3`: true,
		`size(data.text) < 10`:                   true,
		`meta.roles.exists(r, r == "a")`:         true,
		`"b" in attrs.roles && attrs == meta`:    true,
		`has(attrs.nothing)`:                     false,
	} {
		r, err := Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := r.Holds(q); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestNotAYes(t *testing.T) {
	long := make([]string, 200)
	for i := range long {
		long[i] = "x"
	}
	list, err := json.Marshal(long)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text  string
		q     Question
		wrong string
	}{
		"no such field":  {`meta.role == "x"`, Question{}, "no such key"},
		"wrong type":     {`meta.age >= 18`, Question{Meta: `{"age":"old"}`}, "no such overload"},
		"not a bool":     {`meta.vip`, Question{Meta: `{"vip":"yes"}`}, "want true or false"},
		"broken meta":    {`true || meta.x`, Question{Meta: `{`}, "meta: not JSON"},
		"broken claims":  {`claims.x == 1`, Question{Claims: []byte(`{`)}, "claims: not JSON"},
		"too much to do": {`meta.all(a, meta.all(b, meta.all(c, a == c)))`, Question{Meta: string(list)}, "costs more than"},
	} {
		r, err := Compile(c.text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := r.Holds(&c.q); err == nil || got || !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, %v; want an error with %q", name, got, err, c.wrong)
		}
	}
	for _, text := range []string{`claims == {}`, `meta == {} && attrs == {} && info == {} && data == {}`} {
		if r, err := Compile(text); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if ok, err := r.Holds(&Question{}); !ok || err != nil {
			t.Errorf("%s of nothing: %v, %v", text, ok, err)
		}
	}
	r, err := Compile(`data == "hello"`)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Holds(&Question{Data: []byte("hello")}); err != nil || !got {
		t.Errorf("data that is not JSON: %v, %v", got, err)
	}
}

func TestCompileRefuses(t *testing.T) {
	for text, wrong := range map[string]string{
		"":                            "column 1",
		`user ==`:                     "column 8",
		`nobody == ""`:                "undeclared reference to 'nobody'",
		`user`:                        "it gives string",
		`user == 7`:                   "no matching overload",
		`1 + 1`:                       "it gives int",
		strings.Repeat("x", 5000):     "size exceeds",
		strings.Repeat("(", 300):      "column",
		"user == \"a\" &&\n\n  what(": "column",
	} {
		_, err := Compile(text)
		if err == nil || !strings.Contains(err.Error(), wrong) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q: %v, want one line with %q", text, err, wrong)
		}
	}
}

func TestClaims(t *testing.T) {
	for text, want := range map[string]bool{
		`claims.role == "boss"`:                      true,
		`user == "7" && (false || has(claims.role))`: true,
		`meta.roles.exists(r, r == claims.role)`:     true,
		`"x" in claims`:                              true,
		`.claims.role == "boss"`:                     true,
		`meta.claims == 1`:                           false,
		`user == "claims"`:                           false,
	} {
		r, err := Compile(text)
		if err != nil || r.Claims() != want {
			t.Errorf("%s: %v, want %v (%v)", text, r.Claims(), want, err)
		}
	}
	if (*Rule)(nil).Claims() {
		t.Error("no rule looks at claims")
	}
}

func TestOfApp(t *testing.T) {
	a := &app.App{Policies: []app.Policy{{Match: "a"}, {Match: "b", SubscribeIf: "true", PublishIf: "x"}, {Match: "c", PublishIf: "true"}}}
	rules, mistakes := OfApp(a)
	if len(rules) != 3 || rules[0].Subscribe != nil || rules[1].Subscribe == nil || rules[1].Publish != nil || rules[2].Publish == nil {
		t.Errorf("rules: %+v", rules)
	}
	if len(mistakes) != 1 || mistakes[0].Policy != 1 || mistakes[0].Field != "publish_if" || mistakes[0].Err == nil {
		t.Errorf("mistakes: %+v", mistakes)
	}
}

func TestRuleIsShared(t *testing.T) {
	r, err := Compile(`user == "7" && "a" in meta.roles`)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 100 {
				if ok, err := r.Holds(&Question{User: "7", Meta: `{"roles":["a"]}`}); !ok || err != nil {
					t.Errorf("%v, %v", ok, err)
				}
			}
		})
	}
	wait.Wait()
}
