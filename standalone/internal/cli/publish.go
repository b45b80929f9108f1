package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/standalone/internal/apicall"
	"github.com/carillon-rt/carillon/standalone/internal/endtoend"
)

type publishCmd struct {
	Config    string `short:"c" placeholder:"FILE" help:"Take key and secret from this configuration file; or from the one in CARILLON_CONFIG. Without one: the development app."`
	Key       string `help:"Key to sign with, instead of one from the configuration."`
	Secret    string `help:"Secret of the key."`
	URL       string `default:"http://127.0.0.1:6001" help:"Where the API is."`
	Exclude   string `placeholder:"SOCKET-ID" help:"Connection that does not get the event."`
	MasterKey string `placeholder:"BASE64" help:"Master key, for encrypted channels."`
	App       string `arg:"" help:"App id."`
	Channel   string `arg:"" help:"Channel name; several with commas."`
	Event     string `arg:"" help:"Event name."`
	Data      string `arg:"" help:"Data, usually JSON."`
}

// publishTimeout bounds the call.
const publishTimeout = 10 * time.Second

// Run signs the event, sends it and prints the API's answer.
func (c publishCmd) Run(ctx context.Context, s surroundings) error {
	cred, err := credentialFlags{Config: c.Config, App: c.App, Key: c.Key, Secret: c.Secret}.find(s)
	if err != nil {
		return err
	}
	event := apicall.Event{Name: c.Event, Data: c.Data, Channels: strings.Split(c.Channel, ","), SocketID: c.Exclude}
	if err := c.encrypt(&event); err != nil {
		return err
	}
	call, err := apicall.Trigger(cred.App, event)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	status, body, err := call.Do(ctx, c.URL, cred)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("the API refused it: %d %s", status, strings.TrimSpace(string(body)))
	}
	fmt.Fprintf(s.stdout, "%s\n", strings.TrimSpace(string(body)))
	return nil
}

// encrypt seals the data for an encrypted channel, which must be the only one.
func (c publishCmd) encrypt(e *apicall.Event) error {
	for _, name := range e.Channels {
		if !channel.KindOf(name).Encrypted {
			continue
		}
		if len(e.Channels) > 1 {
			return usageError{fmt.Errorf("publish to the encrypted channel %s alone: each channel has its own key", name)}
		}
		if c.MasterKey == "" {
			return usageError{fmt.Errorf("%s is an encrypted channel: give --master-key", name)}
		}
		key, err := endtoend.ParseMasterKey(c.MasterKey)
		if err != nil {
			return usageError{err}
		}
		if e.Data, err = key.Seal(name, e.Data); err != nil {
			return err
		}
	}
	return nil
}
