// Package natsconn holds a process's connections to NATS: one that carries live batches only, one for everything else, and a
// requester for event loops. It owns reconnection, its logs and counters; it knows no subject of ours.
package natsconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Config says which servers to connect to and how to prove who we are. At most one of creds file, nkey file, user and token is used.
type Config struct {
	URLs        []string  `yaml:"urls" doc:"servers to try, such as nats://host:4222; the others of a cluster are learned"`
	CredsFile   string    `yaml:"creds_file" doc:"file with a user JWT and its seed"`
	NKeyFile    string    `yaml:"nkey_file" doc:"file with an NKey seed"`
	User        string    `yaml:"user" doc:"user name"`
	Password    string    `yaml:"password" secret:"true" doc:"password of the user"`
	Token       string    `yaml:"token" secret:"true" doc:"authentication token"`
	TLS         TLSConfig `yaml:"tls"`
	InboxPrefix string    `yaml:"inbox_prefix" doc:"prefix of reply subjects, for accounts that permit only their own; empty: _INBOX"`

	PingInterval time.Duration `yaml:"ping_interval" doc:"how often a silent server is pinged; two missing answers are a lost connection"`
	DrainTimeout time.Duration `yaml:"drain_timeout" doc:"how long closing waits for messages under way"`

	// InProcess connects without a socket to a server in this process; URLs and TLS are not used then.
	InProcess nats.InProcessConnProvider `yaml:"-"`
}

// TLSConfig names PEM files. Any of them set turns TLS on, as a tls:// URL does.
type TLSConfig struct {
	CA         string `yaml:"ca" doc:"file with the certificate authorities that sign the servers; empty: the system's"`
	Cert       string `yaml:"cert" doc:"file with this client's certificate"`
	Key        string `yaml:"key" doc:"file with the key of this client's certificate"`
	ServerName string `yaml:"server_name" doc:"name expected in the servers' certificate; empty: the URL's host"`
}

// DefaultConfig connects to a server on this host.
func DefaultConfig() Config {
	return Config{URLs: []string{nats.DefaultURL}, PingInterval: 5 * time.Second, DrainTimeout: 5 * time.Second}
}

// Validate reports what could never connect.
func (c Config) Validate() error {
	if c.InProcess == nil {
		if len(c.URLs) == 0 {
			return errors.New("urls is empty, want at least one such as nats://127.0.0.1:4222")
		}
		for _, raw := range c.URLs {
			if err := checkURL(raw); err != nil {
				return err
			}
		}
	}
	if c.PingInterval <= 0 {
		return fmt.Errorf("ping_interval is %s, want more than 0: a server that is gone without a word would not be missed", c.PingInterval)
	}
	if c.DrainTimeout < 0 {
		return fmt.Errorf("drain_timeout is %s, want 0 (the default) or more", c.DrainTimeout)
	}
	if p := c.InboxPrefix; strings.ContainsAny(p, "*> \t\r\n") || strings.HasPrefix(p, ".") || strings.HasSuffix(p, ".") || strings.Contains(p, "..") {
		return fmt.Errorf("inbox_prefix is %q, want the beginning of a subject without its last dot, such as _INBOX_api", p)
	}
	var ways []string
	for _, way := range []struct{ name, value string }{
		{"creds_file", c.CredsFile}, {"nkey_file", c.NKeyFile}, {"user", c.User}, {"token", c.Token},
	} {
		if way.value != "" {
			ways = append(ways, way.name)
		}
	}
	if len(ways) > 1 {
		return fmt.Errorf("%s are set, want only one of them", strings.Join(ways, " and "))
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return errors.New("tls.cert and tls.key go together, only one of them is set")
	}
	return nil
}

func checkURL(raw string) error {
	full := raw
	if !strings.Contains(full, "://") {
		full = "nats://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" {
		return fmt.Errorf("urls has %q, want such as nats://host:4222", redactURL(raw))
	}
	return nil
}

// redactURL hides a password written into a URL.
func redactURL(raw string) string {
	if at := strings.LastIndexByte(raw, '@'); at >= 0 {
		scheme, _, ok := strings.Cut(raw, "://")
		if !ok {
			scheme = "nats"
		}
		return scheme + "://(redacted)" + raw[at:]
	}
	return raw
}

// credentials returns the options that prove who we are; files are read now, so that a wrong path is an error at once and not a
// connection that is retried for ever.
func (c Config) credentials() ([]nats.Option, error) {
	switch {
	case c.CredsFile != "":
		if _, err := os.Stat(c.CredsFile); err != nil {
			return nil, fmt.Errorf("nats.creds_file: %w", err)
		}
		return []nats.Option{nats.UserCredentials(c.CredsFile)}, nil
	case c.NKeyFile != "":
		opt, err := nats.NkeyOptionFromSeed(c.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("nats.nkey_file %s: %w", c.NKeyFile, err)
		}
		return []nats.Option{opt}, nil
	case c.User != "":
		return []nats.Option{nats.UserInfo(c.User, c.Password)}, nil
	case c.Token != "":
		return []nats.Option{nats.Token(c.Token)}, nil
	}
	return nil, nil
}

func (t TLSConfig) options() ([]nats.Option, error) {
	if t == (TLSConfig{}) {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("nats.tls.ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("nats.tls.ca: %s has no PEM certificate", t.CA)
		}
	}
	opts := []nats.Option{nats.Secure(cfg)}
	if t.Cert != "" {
		if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
			return nil, fmt.Errorf("nats.tls: %w", err)
		}
		// Read again at each connect, so that a renewed certificate is picked up.
		opts = append(opts, nats.ClientTLSConfig(
			func() (tls.Certificate, error) { return tls.LoadX509KeyPair(t.Cert, t.Key) },
			func() (*x509.CertPool, error) { return cfg.RootCAs, nil },
		))
	}
	return opts, nil
}
