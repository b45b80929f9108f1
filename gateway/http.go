package gateway

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	httpReadTimeout = 15 * time.Second
	httpIdleTimeout = 120 * time.Second
	httpHeaderBytes = 32 << 10
)

// httpServer serves what the loops hand over.
func httpServer(opts Options, cfg Config, log *slog.Logger) *http.Server {
	h := opts.HTTP
	if h == nil {
		h = http.HandlerFunc(serveUp)
	}
	return &http.Server{
		Handler: h, ReadHeaderTimeout: cfg.Limits.HeadTimeout,
		ReadTimeout: cmp.Or(opts.ReadTimeout, httpReadTimeout), IdleTimeout: cmp.Or(opts.IdleTimeout, httpIdleTimeout),
		MaxHeaderBytes: httpHeaderBytes, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// serveUp is all that a gateway without an API in its process has to say.
func serveUp(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if r.URL.Path == "/up" {
		io.WriteString(w, "OK\n") // the client is gone if this fails
		return
	}
	w.WriteHeader(http.StatusNotFound)
	io.WriteString(w, "not found: this port takes WebSocket connections at /app/<key>\n")
}

// certificateCheck is how often the certificate's file is looked at.
const certificateCheck = 10 * time.Second

// certificate is read again when its file changes.
type certificate struct {
	files TLSConfig // immutable

	mu sync.Mutex
	// guarded by mu
	cert     *tls.Certificate
	modified time.Time
	checked  time.Time
}

// serverTLS is a TLS configuration for servers that follows the files.
func serverTLS(files TLSConfig) (*tls.Config, error) {
	c := &certificate{files: files}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}, nil
}

// get gives the newest certificate that could be read.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cert != nil && time.Since(c.checked) < certificateCheck {
		return c.cert, nil
	}
	c.checked = time.Now()
	info, err := os.Stat(c.files.Cert)
	if err == nil && c.cert != nil && info.ModTime().Equal(c.modified) {
		return c.cert, nil
	}
	if err == nil {
		var cert tls.Certificate
		if cert, err = tls.LoadX509KeyPair(c.files.Cert, c.files.Key); err == nil {
			c.cert, c.modified = &cert, info.ModTime()
		}
	}
	if c.cert == nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return c.cert, nil
}
