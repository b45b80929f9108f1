package gateway

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
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

// owner has the connections of clients: an *edge.Edge.
type owner interface {
	Owns(method, target string) bool
	TakeBack(conn net.Conn, read []byte)
}

// giveBack has requests of clients go to their owner that come over a
// connection which net/http serves already: proxies use one for whatever comes.
func giveBack(to owner, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hijacker, ok := w.(http.Hijacker)
		if !ok || !to.Owns(r.Method, r.RequestURI) {
			next.ServeHTTP(w, r)
			return
		}
		conn, buffered, err := hijacker.Hijack()
		if err != nil {
			http.Error(w, "this connection can't be used for this request, use another one", http.StatusMisdirectedRequest)
			return
		}
		_ = conn.SetDeadline(time.Time{}) // fails only on a closed connection
		read := requestHead(r)
		ahead, _ := buffered.Reader.Peek(buffered.Reader.Buffered()) // what is there can be looked at
		to.TakeBack(conn, append(read, ahead...))
	})
}

// requestHead writes the head of a request as it came.
func requestHead(r *http.Request) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/%d.%d\r\nHost: %s\r\n", r.Method, r.RequestURI, r.ProtoMajor, r.ProtoMinor, r.Host)
	for _, coding := range r.TransferEncoding {
		fmt.Fprintf(&b, "Transfer-Encoding: %s\r\n", coding)
	}
	_ = r.Header.Write(&b) // a buffer takes everything
	b.WriteString("\r\n")
	return b.Bytes()
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
