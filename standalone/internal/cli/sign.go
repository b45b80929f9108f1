package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/standalone"
	"github.com/carillon-rt/carillon/standalone/internal/apicall"
	"github.com/carillon-rt/carillon/standalone/internal/endtoend"
)

type signCommand struct {
	Channel signChannel `cmd:"" help:"Sign a subscription: what the authorization endpoint of an application answers."`
	User    signUser    `cmd:"" help:"Sign a sign-in: what the user authentication endpoint of an application answers."`
	Request signRequest `cmd:"" help:"Sign a call of the HTTP API and print it as a curl line, good for ten minutes."`
}

// credentialFlags say who signs.
type credentialFlags struct {
	Config string `short:"c" placeholder:"FILE" help:"Take key and secret from this configuration file; or from the one in CARILLON_CONFIG."`
	App    string `placeholder:"ID" help:"App id; may be left out when the configuration has one app."`
	Key    string `help:"Key to sign with, instead of one from the configuration."`
	Secret string `help:"Secret of the key."`
}

// find gives the credentials: the flags, else the app in the configuration, else the development app.
func (f credentialFlags) find(s surroundings) (apicall.Credentials, error) {
	if (f.Key == "") != (f.Secret == "") {
		return apicall.Credentials{}, usageError{errors.New("--key and --secret go together")}
	}
	if f.Key != "" {
		return apicall.Credentials{App: f.App, Key: f.Key, Secret: f.Secret}, nil
	}
	apps := []app.App{standalone.DevApp()}
	if f.Config != "" || s.variable(standalone.ConfigVariable) != "" {
		cfg, err := configFlags{Config: f.Config}.load(s)
		if err != nil {
			return apicall.Credentials{}, err
		}
		apps = cfg.Apps
	}
	return f.choose(apps)
}

func (f credentialFlags) choose(apps []app.App) (apicall.Credentials, error) {
	var ids []string
	for _, a := range apps {
		ids = append(ids, a.ID)
		if a.ID != f.App && (f.App != "" || len(apps) > 1) {
			continue
		}
		for _, k := range a.Keys {
			if !k.Disabled && k.Secret != "" {
				return apicall.Credentials{App: a.ID, Key: k.Key, Secret: k.Secret}, nil
			}
		}
		return apicall.Credentials{}, fmt.Errorf("app %s has no key that is in use and has a secret", a.ID)
	}
	if f.App == "" {
		return apicall.Credentials{}, usageError{fmt.Errorf("there are several apps, say which with --app: %s", strings.Join(ids, ", "))}
	}
	return apicall.Credentials{}, usageError{fmt.Errorf("there is no app %s, only %s; give --config, or --key and --secret", f.App, strings.Join(ids, ", "))}
}

var socketID = regexp.MustCompile(`^\d+\.\d+$`)

func checkSocketID(id string) error {
	if !socketID.MatchString(id) {
		return usageError{fmt.Errorf("socket id %q, want digits.digits as the server gave it to the client", id)}
	}
	return nil
}

type signChannel struct {
	credentialFlags
	SocketID  string `arg:"" name:"socket-id" help:"Socket id of the client's connection."`
	Channel   string `arg:"" help:"Channel name."`
	Data      string `placeholder:"JSON" help:"Channel data, required for presence channels: {\"user_id\":\"1\",\"user_info\":{...}}."`
	MasterKey string `placeholder:"BASE64" help:"Master key of encrypted channels, which adds shared_secret."`
}

// Run prints the answer of an authorization endpoint.
func (c signChannel) Run(s surroundings) error {
	if err := checkSocketID(c.SocketID); err != nil {
		return err
	}
	if err := channel.ValidatePusher(c.Channel, 0); err != nil {
		return usageError{err}
	}
	cred, err := c.find(s)
	if err != nil {
		return err
	}
	answer := struct {
		Auth         string `json:"auth"`
		ChannelData  string `json:"channel_data,omitempty"`
		SharedSecret string `json:"shared_secret,omitempty"`
	}{ChannelData: c.Data, Auth: signature.Auth(cred.Key, cred.Secret, signature.Channel(c.SocketID, c.Channel, c.Data))}
	if c.MasterKey != "" {
		key, err := endtoend.ParseMasterKey(c.MasterKey)
		if err != nil {
			return usageError{err}
		}
		answer.SharedSecret = key.SharedSecret(c.Channel)
	}
	return printJSON(s.stdout, answer)
}

type signUser struct {
	credentialFlags
	SocketID string `arg:"" name:"socket-id" help:"Socket id of the client's connection."`
	UserData string `arg:"" name:"user-data" help:"The user as JSON: {\"id\":\"1\",\"user_info\":{...},\"watchlist\":[...]}."`
}

// Run prints the answer of a user authentication endpoint.
func (c signUser) Run(s surroundings) error {
	if err := checkSocketID(c.SocketID); err != nil {
		return err
	}
	if !json.Valid([]byte(c.UserData)) {
		return usageError{fmt.Errorf("user data is not JSON: %s", c.UserData)}
	}
	cred, err := c.find(s)
	if err != nil {
		return err
	}
	return printJSON(s.stdout, struct {
		Auth     string `json:"auth"`
		UserData string `json:"user_data"`
	}{signature.Auth(cred.Key, cred.Secret, signature.User(c.SocketID, c.UserData)), c.UserData})
}

type signRequest struct {
	credentialFlags
	Method string            `arg:"" help:"GET or POST."`
	Path   string            `arg:"" help:"Path, such as /apps/1001/channels."`
	Query  map[string]string `placeholder:"NAME=VALUE" mapsep:"none" help:"Query parameter; may be repeated."`
	Body   string            `help:"Request body."`
	URL    string            `default:"http://127.0.0.1:6001" help:"Where the API is."`
}

// Run prints the call as a curl line.
func (c signRequest) Run(s surroundings) error {
	if !strings.HasPrefix(c.Path, "/") || strings.Contains(c.Path, "?") {
		return usageError{fmt.Errorf("path %q, want one that begins with a slash and has no query (that is --query)", c.Path)}
	}
	cred, err := c.find(s)
	if err != nil {
		return err
	}
	call := apicall.Call{Method: strings.ToUpper(c.Method), Path: c.Path, Query: c.Query, Body: []byte(c.Body)}
	fmt.Fprintln(s.stdout, call.Curl(c.URL, cred, time.Now()))
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
