package publish

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/carillon-rt/carillon/proto/signature"
)

// App is the application that publishes over HTTP.
type App struct {
	// Addr is host:port of the Pusher HTTP API.
	Addr, ID, Key, Secret string
}

// HTTP publishes by signed requests on keep-alive connections, one request at
// a time on each; every connection is a lane.
type HTTP struct {
	ledger
	app    App
	batch  int // events of a request; 0 posts to /events
	epoll  int
	events []syscall.EpollEvent
	idle   []*request
	all    []*request
	body   []byte
	out    []byte
}

// request is one connection to the API.
type request struct {
	fd   int // -1 if there is none
	lane int
	in   []byte // what has come of the answer
	size int    // publications of the request, 0 if none is under way
	sent int64
}

// NewHTTP opens connections to the app's API, as many as there may be
// requests under way. With a batch above 0 each request carries so many
// events (POST /batch_events), else one (POST /events).
func NewHTTP(app App, m Message, connections, batch int, now func() int64) (*HTTP, error) {
	l, err := newLedger(connections, m, now)
	if err != nil {
		return nil, err
	}
	h := &HTTP{ledger: l, app: app, batch: batch, events: make([]syscall.EpollEvent, connections)}
	if h.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	for lane := range connections {
		r := &request{fd: -1, lane: lane}
		h.all = append(h.all, r)
		if err := h.dial(r); err != nil {
			return nil, errors.Join(err, h.Close())
		}
	}
	h.idle = append(h.idle, h.all...)
	return h, nil
}

// dial makes a connection for r.
func (h *HTTP) dial(r *request) error {
	tcp, err := net.ResolveTCPAddr("tcp4", h.app.Addr)
	if err != nil {
		return fmt.Errorf("the API's address %s: %w", h.app.Addr, err)
	}
	to := &syscall.SockaddrInet4{Port: tcp.Port, Addr: [4]byte{127, 0, 0, 1}}
	if ip := tcp.IP.To4(); ip != nil && !ip.IsUnspecified() {
		copy(to.Addr[:], ip)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	for err = syscall.Connect(fd, to); errors.Is(err, syscall.EINTR); {
		err = syscall.Connect(fd, to)
	}
	if err == nil || errors.Is(err, syscall.EISCONN) {
		err = errors.Join(syscall.SetNonblock(fd, true), syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
			syscall.EpollCtl(h.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(r.lane)}))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("connect to the API at %s: %w", h.app.Addr, err), syscall.Close(fd))
	}
	r.fd = fd
	return nil
}

// FD implements Publisher.
func (h *HTTP) FD() int { return h.epoll }

// Connections is how many connections there are now: servers close idle ones,
// which are made anew when they are needed.
func (h *HTTP) Connections() int {
	n := 0
	for _, r := range h.all {
		if r.fd >= 0 {
			n++
		}
	}
	return n
}

// Ready implements Publisher.
func (h *HTTP) Ready() bool { return len(h.idle) > 0 }

// Publish implements Publisher: one request for every batch of channels.
func (h *HTTP) Publish(at int64, channels ...int) error {
	for len(channels) > 0 {
		n := min(max(h.batch, 1), len(channels))
		if err := h.post(at, channels[:n]); err != nil {
			return err
		}
		channels = channels[n:]
	}
	return nil
}

func (h *HTTP) post(at int64, channels []int) error {
	if len(h.idle) == 0 {
		return errors.New("more requests than connections to the API")
	}
	r := h.idle[len(h.idle)-1]
	h.idle = h.idle[:len(h.idle)-1]
	path := "/apps/" + h.app.ID + "/events"
	h.body = h.body[:0]
	if h.batch > 0 {
		path = "/apps/" + h.app.ID + "/batch_events"
		h.body = append(h.body, `{"batch":[`...)
	}
	for i, ch := range channels {
		if i > 0 {
			h.body = append(h.body, ',')
		}
		h.body = append(h.body, `{"name":"`+h.message.Event+`","channel":"`+h.message.Name(ch)+`","data":"`...)
		h.body = append(h.appendData(h.body, r.lane, ch, at), `"}`...)
	}
	if h.batch > 0 {
		h.body = append(h.body, "]}"...)
	}
	if r.fd < 0 {
		if err := h.dial(r); err != nil {
			return err
		}
	}
	r.size, r.sent = len(channels), h.now()
	h.out = h.appendRequest(h.out[:0], path, time.Now())
	n, err := syscall.Write(r.fd, h.out)
	if err == nil && n < len(h.out) {
		err = errors.New("the API's socket took a part only")
	}
	if err != nil {
		return fmt.Errorf("publish over HTTP: %w", err)
	}
	return nil
}

// appendRequest appends a request with h.body that is signed now.
func (h *HTTP) appendRequest(dst []byte, path string, now time.Time) []byte {
	query := "auth_key=" + h.app.Key + "&auth_timestamp=" + strconv.FormatInt(now.Unix(), 10) +
		"&auth_version=1.0&body_md5=" + signature.BodyMD5(h.body)
	sum := signature.Sign(h.app.Secret, signature.Request("POST", path, query))
	dst = append(dst, "POST "+path+"?"+query+"&auth_signature="+sum+" HTTP/1.1\r\nHost: "+h.app.Addr+
		"\r\nContent-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(h.body))+"\r\n\r\n"...)
	return append(dst, h.body...)
}

// Poll implements Publisher.
func (h *HTTP) Poll() error {
	n, err := syscall.EpollWait(h.epoll, h.events, 0)
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return fmt.Errorf("epoll_wait: %w", err)
	}
	for _, ev := range h.events[:max(n, 0)] {
		if err := h.read(h.all[ev.Fd]); err != nil {
			return err
		}
	}
	return nil
}

func (h *HTTP) read(r *request) error {
	var b [4096]byte
	n, err := syscall.Read(r.fd, b[:])
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return nil
	}
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil && r.size == 0 { // servers close what is idle for long
		fd := r.fd
		r.fd = -1
		return syscall.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("the API closed a connection: %w", err)
	}
	r.in = append(r.in, b[:n]...)
	head, body, complete := bytes.Cut(r.in, []byte("\r\n\r\n"))
	if !complete {
		return nil
	}
	length, err := contentLength(head)
	if err != nil || len(body) < length {
		return err
	}
	failure := ""
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		failure = string(r.in)
	}
	r.in = r.in[:0]
	h.answered(r.size, r.sent, failure)
	r.size = 0
	h.idle = append(h.idle, r)
	return nil
}

func contentLength(head []byte) (int, error) {
	for line := range strings.SplitSeq(string(head), "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Content-Length") {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("an answer of the API has no Content-Length: %q", head)
}

// Close implements Publisher.
func (h *HTTP) Close() error {
	var errs []error
	for _, r := range h.all {
		if r.fd >= 0 {
			errs = append(errs, syscall.Close(r.fd))
		}
	}
	h.all, h.idle = nil, nil
	return errors.Join(append(errs, syscall.Close(h.epoll))...)
}
