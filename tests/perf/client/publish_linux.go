package client

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// Publisher publishes one publication at a time for a Fleet.
type Publisher interface {
	// Ready says whether Publish can be called now.
	Ready() bool
	// Publish sends one publication and does not wait.
	Publish() error
}

// Raw publishes to a raw loop, by a frame on the fleet's first connection.
type Raw struct {
	fleet *Fleet
	frame []byte
}

// NewRaw returns a publisher that has the raw loop send message to everybody.
func NewRaw(f *Fleet, message []byte) *Raw {
	return &Raw{fleet: f, frame: AppendText(nil, append([]byte{'P'}, message...))}
}

// Ready implements Publisher.
func (r *Raw) Ready() bool { return true }

// Publish implements Publisher.
func (r *Raw) Publish() error { return write(r.fleet.conns[0].fd, r.frame) }

// App is the application that publishes by HTTP.
type App struct {
	Addr, ID, Key, Secret string
}

// HTTP publishes by signed requests on keep-alive connections, one
// publication in flight on each. They are on the fleet's loop.
type HTTP struct {
	app  App
	body []byte
	md5  string
	idle []*request
	all  []*request
}

// request is one connection to the API.
type request struct {
	http *HTTP
	fd   int
	out  []byte // the request that is being written
	in   []byte // what has come of the answer
}

// NewHTTP opens connections to the app's API. body is what is posted to
// /events.
func NewHTTP(f *Fleet, app App, body []byte, connections int) (*HTTP, error) {
	address, err := resolve(app.Addr)
	if err != nil {
		return nil, err
	}
	sum := md5.Sum(body)
	h := &HTTP{app: app, body: body, md5: hex.EncodeToString(sum[:])}
	for range connections {
		fd, err := connect(&address)
		if err != nil {
			return nil, err
		}
		r := &request{http: h, fd: fd}
		if err := f.add(fd, r); err != nil {
			return nil, err
		}
		h.all = append(h.all, r)
	}
	h.idle = append(h.idle, h.all...)
	return h, nil
}

// Ready implements Publisher.
func (h *HTTP) Ready() bool { return len(h.idle) > 0 }

// Answered says whether every publication was answered.
func (h *HTTP) Answered() bool { return len(h.idle) == len(h.all) }

// Publish implements Publisher.
func (h *HTTP) Publish() error {
	r := h.idle[len(h.idle)-1]
	h.idle = h.idle[:len(h.idle)-1]
	r.out = h.appendRequest(r.out[:0], time.Now())
	return write(r.fd, r.out)
}

// appendRequest appends a request that is signed now.
func (h *HTTP) appendRequest(dst []byte, now time.Time) []byte {
	path := "/apps/" + h.app.ID + "/events"
	query := "auth_key=" + h.app.Key + "&auth_timestamp=" + strconv.FormatInt(now.Unix(), 10) + "&auth_version=1.0&body_md5=" + h.md5
	mac := hmac.New(sha256.New, []byte(h.app.Secret))
	mac.Write([]byte("POST\n" + path + "\n" + query))
	dst = append(dst, "POST "+path+"?"+query+"&auth_signature="+hex.EncodeToString(mac.Sum(nil))+" HTTP/1.1\r\nHost: "+h.app.Addr+
		"\r\nContent-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(h.body))+"\r\n\r\n"...)
	return append(dst, h.body...)
}

// readable implements watcher.
func (r *request) readable() error {
	var b [4096]byte
	n, err := syscall.Read(r.fd, b[:])
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return nil
	}
	if err != nil || n == 0 {
		return fmt.Errorf("client: the API closed a connection (%v)", err)
	}
	r.in = append(r.in, b[:n]...)
	head, body, complete := bytes.Cut(r.in, []byte("\r\n\r\n"))
	if !complete {
		return nil
	}
	length, err := contentLength(head)
	if err != nil {
		return err
	}
	if len(body) < length {
		return nil
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("client: a publication was answered %q", r.in)
	}
	r.in = r.in[:0]
	r.http.idle = append(r.http.idle, r)
	return nil
}

func (r *request) close() error { return syscall.Close(r.fd) }

func contentLength(head []byte) (int, error) {
	_, rest, found := bytes.Cut(head, []byte("Content-Length: "))
	if !found {
		return 0, fmt.Errorf("client: an answer without Content-Length: %q", head)
	}
	value, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return strconv.Atoi(string(value))
}

// Storm publishes for a time with up to window publications outstanding, each
// of which every connection gets, and returns when all of them have arrived.
func (f *Fleet) Storm(p Publisher, window int, length time.Duration) (published int64, err error) {
	const patience = 10 * time.Second
	before, size := f.messages, int64(len(f.conns))
	end := time.Now().Add(length)
	for {
		arrived := f.messages - before
		over := time.Now().After(end)
		if over && arrived >= published*size {
			if arrived > published*size {
				return published, fmt.Errorf("client: %d messages of %d publications to %d connections", arrived, published, size)
			}
			return published, nil
		}
		// With a window of 1 everybody has the last publication before the next
		// is sent.
		for !over && p.Ready() && arrived >= (published-int64(window)+1)*size {
			if err := p.Publish(); err != nil {
				return published, err
			}
			published++
		}
		if time.Now().After(end.Add(patience)) {
			return published, fmt.Errorf("client: %d of %d messages had arrived %s after the end", arrived, published*size, patience)
		}
		if err := f.Poll(20 * time.Millisecond); err != nil {
			return published, err
		}
		if f.lost > 0 {
			return published, fmt.Errorf("client: the server has closed %d connections", f.lost)
		}
	}
}
