package app

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Hook is an endpoint of the application that is asked before something
// happens (Centrifugo calls it a proxy). What it is asked is said where its
// name is used: by policies and in Centrifugo.
type Hook struct {
	Name string `yaml:"name" json:"name" doc:"name by which policies and centrifugo refer to it"`
	// URL may hold a password.
	URL     string        `yaml:"url" json:"url,omitempty" secret:"true" doc:"http(s)://host/path takes a POST; grpc://host:port or grpcs://host:port (TLS) a call of CentrifugoProxy; nats:subject a request; only authsvc reads it"`
	Timeout time.Duration `yaml:"timeout" json:"timeout,omitempty" doc:"time in which it must answer (1s)"`
	// Concurrency bounds a reconnect storm.
	Concurrency int `yaml:"concurrency" json:"concurrency,omitempty" doc:"requests to it at a time and authsvc node (64); others wait within their timeout"`
	// Headers are sent as they are: they often hold a credential.
	Headers         map[string]string `yaml:"headers" json:"headers,omitempty" secret:"true" doc:"extra request headers or gRPC metadata; only authsvc reads them"`
	ForwardHeaders  []string          `yaml:"forward_headers" json:"forward_headers,omitempty" doc:"headers of the client's request that the hook gets, such as Cookie or Origin; as HTTP headers, gRPC metadata or NATS headers"`
	EmulatedHeaders []string          `yaml:"emulated_headers" json:"emulated_headers,omitempty" doc:"headers that the client may write into its connect command, and the hook gets, such as Authorization"`
	IncludeMeta     bool              `yaml:"include_meta" json:"include_meta,omitempty" doc:"send the connection's meta with each request"`
	Binary          bool              `yaml:"binary" json:"binary,omitempty" doc:"data of clients travels as base64 (b64data), for data that is not JSON"`
	Cache           time.Duration     `yaml:"cache" json:"cache,omitempty" doc:"give the same answer to the same question of the same user this long, for connect and subscribe hooks that look at the user, the channel, forwarded headers and data only; 0 asks each time"`
	Statuses        []StatusAnswer    `yaml:"statuses" json:"statuses,omitempty" doc:"what an HTTP status other than 200 means; those not listed are no answer, and clients try again"`
}

// StatusAnswer makes an answer of an HTTP status, for applications that refuse
// with statuses such as 403.
type StatusAnswer struct {
	Status     int    `yaml:"status" json:"status" doc:"HTTP status"`
	Code       uint32 `yaml:"code" json:"code" doc:"code of the error, such as 103 (permission denied) or 1000, or of the disconnect, such as 4501"`
	Text       string `yaml:"text" json:"text,omitempty" doc:"message of the error, or reason of the disconnect"`
	Temporary  bool   `yaml:"temporary" json:"temporary,omitempty" doc:"clients may try again"`
	Disconnect bool   `yaml:"disconnect" json:"disconnect,omitempty" doc:"end the connection instead of refusing what it asked for"`
}

// Defaults of hooks.
const (
	DefaultHookTimeout     = time.Second
	DefaultHookConcurrency = 64

	hookTimeoutMax = 30 * time.Second
	hookCacheMax   = time.Hour
)

// Hook gives the hook of that name, nil if there is none.
func (a *App) Hook(name string) *Hook {
	for i := range a.Hooks {
		if a.Hooks[i].Name == name {
			return &a.Hooks[i]
		}
	}
	return nil
}

// ForwardedHeaders lists the headers of a client's request that some hook of
// the app gets, in lower case, each once.
func (a *App) ForwardedHeaders() []string {
	var names []string
	for i := range a.Hooks {
		names = appendLower(names, a.Hooks[i].ForwardHeaders)
	}
	return names
}

// EmulatedHeaders lists those that a client may write into its connect command.
func (a *App) EmulatedHeaders() []string {
	var names []string
	for i := range a.Hooks {
		names = appendLower(names, a.Hooks[i].EmulatedHeaders)
	}
	return names
}

func appendLower(to, names []string) []string {
	for _, name := range names {
		if name = strings.ToLower(name); !slices.Contains(to, name) {
			to = append(to, name)
		}
	}
	return to
}

// withDefaults fills in what is 0.
func (h Hook) withDefaults() Hook {
	if h.Timeout == 0 {
		h.Timeout = DefaultHookTimeout
	}
	if h.Concurrency == 0 {
		h.Concurrency = DefaultHookConcurrency
	}
	return h
}

// public leaves out where the hook is and the credentials it is called with.
func (h Hook) public() Hook {
	h.URL, h.Headers, h.Statuses = "", nil, nil
	return h
}

// validate does not ask for a URL: nodes without authsvc may have none.
func (h Hook) validate() error {
	switch {
	case h.Name == "":
		return errors.New("a hook has no name: give one, such as backend, and use it as a policy's subscribe_hook")
	case h.Timeout < 0 || h.Timeout > hookTimeoutMax:
		return fmt.Errorf("hook %q: timeout is %s, want up to %s, or 0s for %s", h.Name, h.Timeout, hookTimeoutMax, DefaultHookTimeout)
	case h.Concurrency < 0:
		return fmt.Errorf("hook %q: concurrency is %d, want more than 0, or 0 for %d", h.Name, h.Concurrency, DefaultHookConcurrency)
	case h.Cache < 0 || h.Cache > hookCacheMax:
		return fmt.Errorf("hook %q: cache is %s, want 0s to %s", h.Name, h.Cache, hookCacheMax)
	}
	if err := h.validateURL(); err != nil {
		return fmt.Errorf("hook %q: %w", h.Name, err)
	}
	for _, s := range h.Statuses {
		switch {
		case s.Status < 201 || s.Status > 599:
			return fmt.Errorf("hook %q: statuses: %d is not a status besides 200, want 201 to 599", h.Name, s.Status)
		case s.Disconnect && (s.Code < 3000 || s.Code > 4999):
			return fmt.Errorf("hook %q: status %d: %d is not the code of a disconnect, want 3000 to 4999", h.Name, s.Status, s.Code)
		case s.Code == 0:
			return fmt.Errorf("hook %q: status %d has no code, want one such as 103", h.Name, s.Status)
		}
	}
	for _, list := range [][]string{h.ForwardHeaders, h.EmulatedHeaders} {
		for _, name := range list {
			if err := passable(name); err != nil {
				return fmt.Errorf("hook %q: %w", h.Name, err)
			}
		}
	}
	for name, value := range h.Headers {
		if err := passable(name); err != nil {
			return fmt.Errorf("hook %q: headers: %w", h.Name, err)
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			return fmt.Errorf("hook %q: headers: the value of %q has line breaks, or characters that are not ASCII", h.Name, name)
		}
	}
	return nil
}

// validateURL never repeats the address: it may hold a password.
func (h Hook) validateURL() error {
	if h.URL == "" {
		return nil
	}
	const want = "want http://, https://, grpc:// or grpcs:// and a host, or nats: and a subject"
	if subject, ok := strings.CutPrefix(h.URL, natsScheme); ok {
		return validateSubject(subject)
	}
	u, err := url.Parse(h.URL)
	if err != nil {
		return errors.New("url can't be read; " + want)
	}
	switch {
	case u.Host == "":
		return errors.New("url has no host; " + want)
	case u.Scheme == "http" || u.Scheme == "https":
		return nil
	case u.Scheme == "grpc" || u.Scheme == "grpcs":
		if u.Port() == "" || strings.Trim(u.Path, "/") != "" {
			return errors.New("url of a gRPC hook must have a host and a port, and nothing behind them")
		}
		return nil
	}
	return fmt.Errorf("url begins with %q; %s", u.Scheme, want)
}

// natsScheme begins the addresses that are subjects.
const natsScheme = "nats:"

func validateSubject(subject string) error {
	if subject == "" || strings.ContainsAny(subject, " \t\r\n*>") || slices.Contains(strings.Split(subject, "."), "") {
		return errors.New("url: what follows nats: is not a subject without wildcards, such as hooks.chat")
	}
	return nil
}

// ownHeaders are those that requests to hooks have anyway.
var ownHeaders = []string{
	"carillon-hook", "connection", "content-encoding", "content-length", "content-type", "host", "keep-alive", "te", "trailer", "transfer-encoding", "type", "upgrade",
}

// passable says what is wrong with a header that a hook is to get.
func passable(name string) error {
	lower := strings.ToLower(name)
	switch {
	case !headerName(name):
		return fmt.Errorf("%q is not the name of a header", name)
	case slices.Contains(ownHeaders, lower), strings.HasPrefix(lower, "grpc-"), strings.HasSuffix(lower, "-bin"):
		return fmt.Errorf("header %q can't be passed on: requests to hooks have one of their own", name)
	}
	return nil
}

// headerName says whether name may be that of an HTTP header.
func headerName(name string) bool {
	if name == "" {
		return false
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return true
}

// knownHook says what is wrong with a reference to a hook; none is fine.
func knownHook(hooks []Hook, name string) error {
	if name == "" || slices.ContainsFunc(hooks, func(h Hook) bool { return h.Name == name }) {
		return nil
	}
	var names []string
	for _, h := range hooks {
		names = append(names, h.Name)
	}
	if len(names) == 0 {
		return fmt.Errorf("there is no hook %q: the app has none, add hooks: [{name: %s, url: https://...}]", name, name)
	}
	return fmt.Errorf("there is no hook %q; there are %s", name, strings.Join(names, ", "))
}
