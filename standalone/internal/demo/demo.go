// Package demo is the page at / in dev mode: a small client in the browser, and the endpoints that an application would have
// beside it (authorization, sign-in, publishing). It signs with the app's secret for whoever asks, so it must never be served
// outside dev mode.
package demo

import (
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"time"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/standalone/internal/apicall"
	"github.com/carillon-rt/carillon/standalone/internal/endtoend"
)

//go:embed assets
var assets embed.FS

// bodyMax limits what the page may send, in bytes.
const bodyMax = 256 << 10

// socketID is the form of a socket id (Pusher protocol).
var socketID = regexp.MustCompile(`^\d+\.\d+$`)

// policy lets the page load only what is served here, and connect only to where it came from.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Page serves the demo of one app.
type Page struct {
	app       app.App
	key       app.Key
	masterKey endtoend.MasterKey
	api       http.Handler
	mux       *http.ServeMux
}

// New makes the page for an app that has a key with its secret. api takes the page's publications: the HTTP API itself.
func New(a app.App, api http.Handler) (*Page, error) {
	if len(a.Keys) == 0 || a.Keys[0].Secret == "" {
		return nil, fmt.Errorf("demo page: app %s has no key with a secret", a.ID)
	}
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		return nil, fmt.Errorf("demo page: %w", err)
	}
	p := &Page{app: a, key: a.Keys[0], masterKey: sha256.Sum256([]byte("demo:" + a.Keys[0].Secret)), api: api, mux: http.NewServeMux()}
	p.mux.Handle("GET /{$}", http.FileServerFS(files))
	p.mux.Handle("GET /demo/assets/", http.StripPrefix("/demo/assets/", http.FileServerFS(files)))
	p.mux.HandleFunc("GET /demo/app", p.serveApp)
	p.mux.HandleFunc("POST /demo/auth", p.serveAuth)
	p.mux.HandleFunc("POST /demo/user-auth", p.serveUserAuth)
	p.mux.HandleFunc("POST /demo/publish", p.servePublish)
	return p, nil
}

// Wrap serves the page's own paths and leaves everything else to next.
func (p *Page) Wrap(next http.Handler) http.Handler {
	// Another site in the same browser must not get signatures from here.
	guarded := http.NewCrossOriginProtection().Handler(p.mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := p.mux.Handler(r); pattern == "" {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, bodyMax)
		guarded.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// serveApp tells the page which app it shows.
func (p *Page) serveApp(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"id": p.app.ID, "key": p.key.Key, "client_events": p.app.ClientEvents})
}

// channelAuth is the answer of an authorization endpoint (Pusher protocol, "authorizing users").
type channelAuth struct {
	Auth         string `json:"auth"`
	ChannelData  string `json:"channel_data,omitempty"`
	SharedSecret string `json:"shared_secret,omitempty"`
}

// serveAuth signs a subscription, as /pusher/auth of an application does after it has checked the user.
func (p *Page) serveAuth(w http.ResponseWriter, r *http.Request) {
	socket, name := r.PostFormValue("socket_id"), r.PostFormValue("channel_name")
	if err := checkSocket(socket); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := channel.ValidatePusher(name, 0); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var res channelAuth
	kind := channel.KindOf(name)
	if user := r.PostFormValue("user_id"); kind.Presence && user != "" {
		data, err := json.Marshal(map[string]any{"user_id": user, "user_info": map[string]string{"name": r.PostFormValue("user_name")}})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		res.ChannelData = string(data)
	}
	if kind.Encrypted {
		res.SharedSecret = p.masterKey.SharedSecret(name)
	}
	res.Auth = signature.Auth(p.key.Key, p.key.Secret, signature.Channel(socket, name, res.ChannelData))
	answer(w, res)
}

// serveUserAuth signs a user's sign-in, as /pusher/user-auth of an application does.
func (p *Page) serveUserAuth(w http.ResponseWriter, r *http.Request) {
	socket, id := r.PostFormValue("socket_id"), r.PostFormValue("user_id")
	if err := checkSocket(socket); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if id == "" {
		http.Error(w, "user_id is empty", http.StatusBadRequest)
		return
	}
	user := map[string]any{"id": id, "user_info": map[string]string{"name": r.PostFormValue("user_name")}}
	if watch := r.PostForm["watch"]; len(watch) > 0 {
		user["watchlist"] = watch
	}
	data, err := json.Marshal(user)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	auth := signature.Auth(p.key.Key, p.key.Secret, signature.User(socket, string(data)))
	answer(w, map[string]string{"auth": auth, "user_data": string(data)})
}

func checkSocket(id string) error {
	if !socketID.MatchString(id) {
		return fmt.Errorf("socket_id is %q, want digits.digits as the server gave it", id)
	}
	return nil
}

// publication is what the page's form sends.
type publication struct {
	Channel  string `json:"channel"`
	Event    string `json:"event"`
	Data     string `json:"data"`
	SocketID string `json:"socket_id"`
}

// servePublish signs the publication and gives it to the HTTP API, whose answer is the answer.
func (p *Page) servePublish(w http.ResponseWriter, r *http.Request) {
	req, err := p.trigger(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.api.ServeHTTP(w, req)
}

func (p *Page) trigger(r *http.Request) (*http.Request, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read the publication: %w", err)
	}
	var pub publication
	if err := json.Unmarshal(body, &pub); err != nil {
		return nil, fmt.Errorf("the publication is not JSON: %w", err)
	}
	if pub.Channel == "" || pub.Event == "" {
		return nil, errors.New("a publication needs a channel and an event")
	}
	if channel.KindOf(pub.Channel).Encrypted {
		if pub.Data, err = p.masterKey.Seal(pub.Channel, pub.Data); err != nil {
			return nil, err
		}
	}
	call, err := apicall.Trigger(p.app.ID, apicall.Event{
		Name: pub.Event, Data: pub.Data, Channels: []string{pub.Channel}, SocketID: pub.SocketID,
	})
	if err != nil {
		return nil, err
	}
	cred := apicall.Credentials{App: p.app.ID, Key: p.key.Key, Secret: p.key.Secret}
	req, err := call.Request(r.Context(), "http://"+r.Host, cred, time.Now())
	if err != nil {
		return nil, err
	}
	req.RemoteAddr, req.RequestURI = r.RemoteAddr, req.URL.RequestURI()
	return req, nil
}
