package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/carillon-rt/carillon/kit/config"
)

type level string

func (l level) Validate() error {
	if l == "impossible" {
		return errors.New("is impossible, want something else")
	}
	return nil
}

type base struct {
	Zone string `yaml:"zone" doc:"where"`
}

type limits struct {
	Frame   config.Bytes  `yaml:"frame" doc:"largest frame"`
	Timeout time.Duration `yaml:"timeout" doc:"how long | at most"`
}

func (l limits) Validate() error {
	var errs []error
	if l.Frame < 1024 {
		errs = append(errs, config.FieldErrorf("frame", "is %s, want at least 1KiB", l.Frame))
	}
	if l.Timeout <= 0 {
		errs = append(errs, errors.New("timeout must be more than 0"))
	}
	return errors.Join(errs...)
}

type app struct {
	ID     string `yaml:"id"`
	Secret string `yaml:"secret" secret:"true"`
	Quota  int    `yaml:"quota"`
}

func (a *app) SetDefaults() { a.Quota = 100 }

func (a app) Validate() error {
	if a.ID == "" {
		return config.FieldErrorf("id", "is empty")
	}
	return nil
}

type gateway struct {
	Listen  string            `yaml:"listen" doc:"address"`
	Ratio   float64           `yaml:"ratio"`
	Workers uint16            `yaml:"workers"`
	Format  string            `yaml:"format" enum:"json,text"`
	Origins []string          `yaml:"allowed_origins"`
	Labels  map[string]string `yaml:"labels"`
	Limits  limits            `yaml:"limits"`
	Extra   *limits           `yaml:"extra"`
	Level   level             `yaml:"level"`
	On      bool              `yaml:"on"`
	Hidden  func()            `yaml:"-"`
}

// root embeds an unexported struct, whose exported fields are keys all the same.
type root struct {
	base    `yaml:",inline"`
	Gateway gateway `yaml:"gateway"`
	Token   string  `yaml:"token" secret:"true" doc:"a token"`
	Apps    []app   `yaml:"apps" doc:"tenants"`
}

func defaults() root {
	return root{Gateway: gateway{
		Listen: ":8000", Ratio: 0.5, Workers: 2, Format: "json",
		Limits: limits{Frame: 64 << 10, Timeout: 5 * time.Second},
	}}
}

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "c.yml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestPrecedence(t *testing.T) {
	secret := write(t, "from file\n")
	c := defaults()
	err := config.Source{
		File: write(t, `
zone: north
gateway:
  listen: ":1"
  ratio: 1
  workers: 3
  allowed_origins: [a, b]
  labels: {x: "1", y: z}
  limits: {timeout: 1m}
token: file
apps:
  - id: one
    secret: s
  - {id: two, secret_file: `+secret+`, quota: 7}
other: {whatever: true}
`),
		Env: []string{
			"CARILLON_GATEWAY_LISTEN=:2", "CARILLON_GATEWAY_WORKERS=4", "CARILLON_GATEWAY_LIMITS_FRAME=1MiB",
			"CARILLON_TOKEN_FILE=" + secret, "CARILLON_GATEWAY_EXTRA_FRAME=2KiB", "CARILLON_GATEWAY_EXTRA_TIMEOUT=2s",
			"CARILLON_OTHER_KEY=1", "CARILLON_GATEWAY_ON=", "PATH=/bin", "CARILLON_GATEWAY_ALLOWED_ORIGINS=c, d",
			"CARILLON_GATEWAY_PORT=tcp://10.0.0.1:80", "CARILLON_GATEWAY_SERVICE_HOST=10.0.0.1",
			"CARILLON_GATEWAY_PORT_80_TCP_ADDR=10.0.0.1", "CARILLON_GATEWAY_SERVICE_PORT_HTTP=80",
		},
		Set:    []string{"gateway.workers=5", "gateway.on=true", "gateway.format=text", "other.key=1"},
		Ignore: []string{"other"},
	}.Load(&c)
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Zone = "north"
	want.Gateway.Listen, want.Gateway.Ratio, want.Gateway.Workers = ":2", 1, 5
	want.Gateway.Format, want.Gateway.On = "text", true
	want.Gateway.Origins, want.Gateway.Labels = []string{"c", "d"}, map[string]string{"x": "1", "y": "z"}
	want.Gateway.Limits = limits{1 << 20, time.Minute}
	want.Gateway.Extra = &limits{2 << 10, 2 * time.Second}
	want.Token = "from file"
	want.Apps = []app{{"one", "s", 100}, {"two", "from file", 7}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestEnvLists(t *testing.T) {
	c := defaults()
	err := config.Source{Env: []string{
		`CARILLON_APPS=[{id: a, secret: x}, {id: b, quota: 3}]`, `CARILLON_GATEWAY_LABELS={a: b}`,
		`CARILLON_GATEWAY_ALLOWED_ORIGINS=["x,y", z]`,
	}}.Load(&c)
	if err != nil {
		t.Fatal(err)
	}
	if want := []app{{"a", "x", 100}, {"b", "", 3}}; !reflect.DeepEqual(c.Apps, want) {
		t.Errorf("apps %+v, want %+v", c.Apps, want)
	}
	if want := []string{"x,y", "z"}; !reflect.DeepEqual(c.Gateway.Origins, want) {
		t.Errorf("origins %q, want %q", c.Gateway.Origins, want)
	}
	if c.Gateway.Labels["a"] != "b" {
		t.Errorf("labels %v", c.Gateway.Labels)
	}
}

func TestVariablesAreNotExpanded(t *testing.T) {
	t.Setenv("HOME", "/nowhere")
	c := defaults()
	if err := (config.Source{File: write(t, "token: ${HOME}")}).Load(&c); err != nil || c.Token != "${HOME}" {
		t.Errorf("token %q, %v", c.Token, err)
	}
}

func TestMergeKeys(t *testing.T) {
	c := defaults()
	err := config.Source{Ignore: []string{"x"}, File: write(t, `
x: &base {frame: 2KiB, timeout: 9s}
gateway:
  limits: {<<: *base, frame: 4KiB}
`)}.Load(&c)
	if want := (limits{4 << 10, 9 * time.Second}); err != nil || c.Gateway.Limits != want {
		t.Errorf("limits %+v, %v; want %+v", c.Gateway.Limits, err, want)
	}
}

func TestFileMistakes(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string // one for each line of the error
	}{
		{"empty file", "", nil},
		{"comments only", "# nothing\n", nil},
		{"null section keeps defaults", "gateway:\n", nil},
		{"near key", "gateway:\n  lisen: x\n", []string{"c.yml:2: gateway.lisen: unknown key, did you mean listen?"}},
		{"far key", "zzzzzzz: 1\n", []string{"c.yml:1: zzzzzzz: unknown key, want one of zone, "}},
		{"key in a list", "apps:\n- id: a\n- idd: b\n  id: c\n", []string{"c.yml:3: apps[1].idd: unknown key, did you mean id?"}},
		{"duration", "gateway: {limits: {timeout: soon}}", []string{`c.yml:1: gateway.limits.timeout: want a duration such as 5s, 250ms or 1h30m, got "soon"`}},
		{"duration without unit", "gateway: {limits: {timeout: 5}}", []string{`want a duration such as 5s, 250ms or 1h30m, got "5"`}},
		{"size", "gateway: {limits: {frame: 12 parsecs}}", []string{`gateway.limits.frame: want a size such as 64KiB, 10MB or 4096, got "12 parsecs"`}},
		{"integer", "gateway: {workers: many}", []string{`gateway.workers: want a whole number that is not negative, got "many"`}},
		{"negative", "gateway: {workers: -1}", []string{`gateway.workers: want a whole number that is not negative, got "-1"`}},
		{"too big", "gateway: {workers: 70000}", []string{`gateway.workers: want a whole number`}},
		{"boolean", "gateway: {on: perhaps}", []string{`gateway.on: want true or false, got "perhaps"`}},
		{"list wanted", "apps: 5", []string{`apps: want a list of section, got "5"`}},
		{"list of strings wanted", "gateway: {allowed_origins: a}", []string{`want a list of string, got "a"`}},
		{"section wanted", "gateway: [1]", []string{"gateway: want a section with keys such as listen, ratio, workers, format, got a list"}},
		{"map wanted", "gateway: {labels: [a]}", []string{"gateway.labels: want a map of string, got a list"}},
		{"string wanted", "token: [a]", []string{"token: want a string, got a list"}},
		{"enum", "gateway: {format: xml}", []string{`gateway.format: want one of json, text, got "xml"`}},
		{"twice", "token: a\ntoken: b\n", []string{"c.yml:2: token: the key is there twice"}},
		{"secret and its file", "token: a\ntoken_file: b\n", []string{"b: no such file", "token and token_file are both there"}},
		{"no secret file", "token_file: /nonexistent/x\n", []string{"c.yml:1: token_file: open /nonexistent/x: no such file"}},
		{"two documents", "token: a\n---\ntoken: b\n", []string{"c.yml: more than one YAML document"}},
		{"not YAML", "a: b: c\n", []string{"c.yml: "}},
		{"scalar document", "hello", []string{"c.yml:1: want a section"}},
		{"validation of a section", "gateway:\n  limits:\n    timeout: 0s\n", []string{"c.yml:3: gateway.limits: timeout must be more than 0"}},
		{"validation of a field", "gateway:\n  limits:\n    frame: 3\n", []string{"c.yml:3: gateway.limits.frame: is 3, want at least 1KiB"}},
		{"validation of an item", "apps: [{id: a}, {secret: b}]", []string{"apps[1].id: is empty"}},
		{"validation of a scalar", "gateway: {level: impossible}", []string{"gateway.level: is impossible"}},
		{"several", "tokn: 1\ngateway: {on: 7, ratio: x}\n", []string{"did you mean token?", "gateway.on", "gateway.ratio"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := defaults()
			checkMistakes(t, config.Source{File: write(t, tt.file)}.Load(&c), tt.want)
		})
	}
}

func TestEnvAndSetMistakes(t *testing.T) {
	tests := []struct {
		name     string
		env, set []string
		want     []string
	}{
		{"near variable", []string{"CARILLON_GATEWAY_LISTN=x"}, nil, []string{"CARILLON_GATEWAY_LISTN: unknown variable, did you mean CARILLON_GATEWAY_LISTEN?"}},
		{"far variable", []string{"CARILLON_XYZ_ABCDEFGHIJK=x"}, nil, []string{"CARILLON_XYZ_ABCDEFGHIJK: unknown variable: no key"}},
		{"wrong value", []string{"CARILLON_GATEWAY_WORKERS=x"}, nil, []string{`CARILLON_GATEWAY_WORKERS: gateway.workers: want a whole number that is not negative, got "x"`}},
		{"enum", []string{"CARILLON_GATEWAY_FORMAT=xml"}, nil, []string{"CARILLON_GATEWAY_FORMAT: gateway.format: want one of json, text"}},
		{"secret twice", []string{"CARILLON_TOKEN=a", "CARILLON_TOKEN_FILE=/nonexistent"}, nil, []string{"are both set", "/nonexistent"}},
		{"key in inline YAML", []string{"CARILLON_APPS=[{idd: 1, id: x}]"}, nil, []string{"CARILLON_APPS: apps[0].idd: unknown key, did you mean id?"}},
		{"broken inline YAML", []string{"CARILLON_APPS=[{"}, nil, []string{"CARILLON_APPS: apps: want a list of section as inline YAML"}},
		{"validation names the variable", []string{"CARILLON_GATEWAY_LIMITS_FRAME=5"}, nil, []string{"CARILLON_GATEWAY_LIMITS_FRAME: gateway.limits.frame: is 5"}},
		{"set without value", nil, []string{"token"}, []string{`--set: "token" has no value, want path=value`}},
		{"set near", nil, []string{"gateway.lissten=1"}, []string{"--set: gateway.lissten: unknown key, did you mean gateway.listen?"}},
		{"set far", nil, []string{"q=1"}, []string{"--set: q: unknown key"}},
		{"set a section", nil, []string{"gateway=1"}, []string{"--set: gateway: is a section, set a key in it such as gateway.listen"}},
		{"set wrong", nil, []string{"gateway.on=7"}, []string{"--set gateway.on: gateway.on: want true or false"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := defaults()
			checkMistakes(t, config.Source{Env: tt.env, Set: tt.set}.Load(&c), tt.want)
		})
	}
}

func checkMistakes(t *testing.T, err error, want []string) {
	t.Helper()
	if err == nil {
		if want != nil {
			t.Fatalf("no error, want %q", want)
		}
		return
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d mistakes, want %d:\n%v", len(lines), len(want), err)
	}
	for i, line := range lines {
		if !strings.Contains(line, want[i]) {
			t.Errorf("mistake %d is\n  %s\nwant in it\n  %s", i, line, want[i])
		}
	}
}

func TestManyMistakesAreCut(t *testing.T) {
	c := defaults()
	err := config.Source{File: write(t, "apps: ["+strings.Repeat("{x: 1},", 50)+"]")}.Load(&c)
	if err == nil || !strings.HasSuffix(err.Error(), "and 30 more") {
		t.Errorf("got %v", err)
	}
}

func TestLoadNeedsPointer(t *testing.T) {
	if err := (config.Source{}).Load(defaults()); err == nil {
		t.Error("a struct by value was taken")
	}
	if err := (config.Source{File: "/nonexistent/c.yml"}).Load(new(root)); err == nil {
		t.Error("a missing file was taken")
	}
}

func TestPrint(t *testing.T) {
	c := defaults()
	c.Token, c.Apps = "hush", []app{{ID: "a", Secret: "hush"}, {ID: "b"}}
	c.Gateway.Labels = map[string]string{"1": "true"}
	c.Gateway.Origins = []string{"nats://me:hush@host:4222", "https://host/@me"}
	var out bytes.Buffer
	if err := config.Print(&out, &c); err != nil {
		t.Fatal(err)
	}
	want := `zone: ""
gateway:
  listen: :8000
  ratio: 0.5
  workers: 2
  format: json
  allowed_origins:
    - nats://(redacted)@host:4222
    - https://host/@me
  labels:
    "1": "true"
  limits:
    frame: 64KiB
    timeout: 5s
  extra: null
  level: ""
  on: false
token: (redacted)
apps:
  - id: a
    secret: (redacted)
    quota: 0
  - id: b
    secret: ""
    quota: 0
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
	var again root
	if err := (config.Source{File: write(t, out.String())}).Load(&again); err != nil {
		t.Errorf("what Print writes does not load: %v", err)
	}
}

func TestSchema(t *testing.T) {
	out, err := config.Schema(defaults())
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Additional bool `json:"additionalProperties"`
		Properties map[string]struct {
			Description string
			Properties  map[string]struct {
				Type    any
				Enum    []string
				Default any
			}
			Items struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(out, &schema); err != nil {
		t.Fatal(err)
	}
	gw := schema.Properties["gateway"].Properties
	if schema.Additional || gw["listen"].Default != ":8000" || !reflect.DeepEqual(gw["format"].Enum, []string{"json", "text"}) {
		t.Errorf("schema is\n%s", out)
	}
	if schema.Properties["token_file"].Description == "" || schema.Properties["apps"].Items.Properties["secret_file"] == nil {
		t.Errorf("no keys for files of secrets in\n%s", out)
	}
}

func TestReference(t *testing.T) {
	got := config.Reference(defaults())
	for _, row := range []string{
		"| `gateway.listen` | string | `:8000` | `CARILLON_GATEWAY_LISTEN` | address |",
		"| `gateway.limits.frame` | size | `64KiB` | `CARILLON_GATEWAY_LIMITS_FRAME` | largest frame |",
		"| `gateway.limits.timeout` | duration | `5s` | `CARILLON_GATEWAY_LIMITS_TIMEOUT` | how long \\| at most |",
		"| `token` | string |  | `CARILLON_TOKEN` | a token; or `token_file`: a file that holds it |",
		"| `apps` | list of section |  | `CARILLON_APPS` | tenants |",
		"| `apps[].id` | string |  |  |  |",
	} {
		if !strings.Contains(got, row+"\n") {
			t.Errorf("no row\n%s\nin\n%s", row, got)
		}
	}
}

func TestBytes(t *testing.T) {
	tests := []struct {
		in   string
		want config.Bytes
		out  string
	}{
		{"0", 0, "0"},
		{"4096", 4096, "4KiB"},
		{"64KiB", 64 << 10, "64KiB"},
		{" 3 MiB ", 3 << 20, "3MiB"},
		{"10MB", 10e6, "10000000"},
		{"1kB", 1000, "1000"},
		{"2TiB", 2 << 40, "2TiB"},
		{"7B", 7, "7"},
	}
	for _, tt := range tests {
		got, err := config.ParseBytes(tt.in)
		if err != nil || got != tt.want || got.String() != tt.out {
			t.Errorf("ParseBytes(%q) = %d (%s), %v; want %d (%s)", tt.in, got, got, err, tt.want, tt.out)
		}
	}
	for _, bad := range []string{"", "-1", "KiB", "1.5KiB", "9000000TiB", "1 KiB x", "0x10"} {
		if got, err := config.ParseBytes(bad); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", bad, got)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("gateway: {limits: {frame: 1KiB}}\napps: [{id: a}]")
	f.Add("a: &a [*a]\n")
	f.Add("gateway: &g {<<: *g}\n")
	f.Add("? {a: b}\n: c\n")
	f.Fuzz(func(t *testing.T, text string) {
		name := filepath.Join(t.TempDir(), "c.yml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := defaults()
		if (config.Source{File: name}).Load(&c) != nil {
			return
		}
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatalf("Load took what is not YAML: %v", err)
		}
	})
}
