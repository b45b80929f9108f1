// Package client is what tests use to be clients of a Carillon: a raw client
// of the Pusher protocol, and the signed calls of its HTTP API. It knows the
// wire, and nothing of how Carillon is run.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/carillon-rt/carillon/proto/signature"
)

// Patience is how long Dial and each Expect wait at most, unless told
// otherwise.
const Patience = 20 * time.Second

// Client is one connection. It is used by one goroutine at a time, except that
// one may read (Read, Expect, ...) while another one writes (Send, Write).
// Expect and everything that is given no error to return fail the test, and
// so belong into the test's goroutine; Read and Write are for any goroutine.
type Client struct {
	// SocketID is what the server calls this connection.
	SocketID string

	tb          testing.TB
	conn        net.Conn
	key, secret string
	patience    time.Duration
}

// Frame is one message of the server.
type Frame struct {
	Event   string          `json:"event"`
	Channel string          `json:"channel,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
	// Position is that of an event, for who keeps its place.
	Position string `json:"position,omitempty"`
	Raw      []byte `json:"-"` // all of it, as it came
}

// Text is the content of data that is a string, as almost all data is, else
// the JSON itself.
func (f Frame) Text() string {
	var s string
	if json.Unmarshal(f.Data, &s) != nil {
		return string(f.Data)
	}
	return s
}

// Code is the number of a pusher:error, 0 if there is none.
func (f Frame) Code() int {
	var data struct {
		Code int `json:"code"`
	}
	_ = json.Unmarshal([]byte(f.Text()), &data) // no object: no code
	return data.Code
}

// Option changes what Dial does.
type Option func(*options)

type options struct {
	secret     string
	tls        *tls.Config
	readBuffer int
	patience   time.Duration
}

// WithSecret lets the client sign what it subscribes to and signs in with.
func WithSecret(secret string) Option { return func(o *options) { o.secret = secret } }

// WithTLS connects by wss.
func WithTLS(c *tls.Config) Option { return func(o *options) { o.tls = c } }

// WithReadBuffer sets the bytes that the client's kernel buffers, for a
// client that reads slowly.
func WithReadBuffer(bytes int) Option { return func(o *options) { o.readBuffer = bytes } }

// WithPatience has Dial and each Read wait for as long as this, not Patience.
func WithPatience(d time.Duration) Option { return func(o *options) { o.patience = d } }

// Dial connects to the app with this key at addr, host:port, and closes the
// connection at the end of the test.
func Dial(tb testing.TB, addr, key string, opts ...Option) *Client {
	tb.Helper()
	c, err := TryDial(tb, addr, key, opts...)
	if err != nil {
		tb.Fatalf("connect to %s: %v", addr, err)
	}
	return c
}

// TryDial is Dial for a connection that may be refused: the error says why,
// and is a ws.StatusError for an HTTP answer. It may be called from any
// goroutine of the test.
func TryDial(tb testing.TB, addr, key string, opts ...Option) (*Client, error) {
	o := options{patience: Patience}
	for _, set := range opts {
		set(&o)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), o.patience)
	defer cancel()
	scheme, dialer := "ws", ws.Dialer{NetDial: o.dial, TLSConfig: o.tls}
	if o.tls != nil {
		scheme = "wss"
	}
	conn, early, _, err := dialer.Dial(ctx, fmt.Sprintf("%s://%s/app/%s?protocol=7&client=test&version=1", scheme, addr, key))
	if err != nil {
		return nil, err
	}
	if early != nil { // what came together with the handshake
		first, err := early.Peek(early.Buffered())
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		conn = &earlyConn{conn, bytes.NewReader(slices.Clone(first))}
		ws.PutReader(early)
	}
	c := &Client{tb: tb, conn: conn, key: key, secret: o.secret, patience: o.patience}
	tb.Cleanup(c.Close)
	return c, c.hello()
}

func (o options) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil || o.readBuffer == 0 {
		return conn, err
	}
	if err := conn.(*net.TCPConn).SetReadBuffer(o.readBuffer); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// earlyConn reads what came early before the rest.
type earlyConn struct {
	net.Conn
	early *bytes.Reader
}

// Read implements io.Reader.
func (c *earlyConn) Read(p []byte) (int, error) {
	if c.early.Len() > 0 {
		return c.early.Read(p)
	}
	return c.Conn.Read(p)
}

func (c *Client) hello() error {
	f, err := c.Read()
	if err != nil {
		return fmt.Errorf("wait for the greeting: %w", err)
	}
	if f.Event != "pusher:connection_established" {
		return fmt.Errorf("greeted with %s", f.Raw)
	}
	var data struct {
		SocketID string `json:"socket_id"`
	}
	if err := json.Unmarshal([]byte(f.Text()), &data); err != nil {
		return fmt.Errorf("greeting %s: %w", f.Raw, err)
	}
	c.SocketID = data.SocketID
	return nil
}

// Close ends the connection without a close frame.
func (c *Client) Close() { _ = c.conn.Close() } // closed twice is closed

// Conn is the connection below, for what the protocol does not do.
func (c *Client) Conn() net.Conn { return c.conn }

// Read gives the next frame. Pings are answered and not shown. A connection
// that the server closed is a wsutil.ClosedError with the code; nothing for
// as long as the client's patience is os.ErrDeadlineExceeded.
func (c *Client) Read() (Frame, error) {
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
			return Frame{}, err
		}
		raw, err := wsutil.ReadServerText(c.conn)
		if err != nil {
			return Frame{}, err
		}
		f := Frame{Raw: raw}
		if err := json.Unmarshal(raw, &f); err != nil {
			return f, fmt.Errorf("frame %q: %w", raw, err)
		}
		if f.Event != "pusher:ping" {
			return f, nil
		}
		if err := c.Write("pusher:pong", "", struct{}{}); err != nil {
			return f, err
		}
	}
}

// Write sends an event; channel is "" for the protocol's own.
func (c *Client) Write(event, channel string, data any) error {
	message := map[string]any{"event": event, "data": data}
	if channel != "" {
		message["channel"] = channel
	}
	raw, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return wsutil.WriteClientText(c.conn, raw)
}

// Send is Write that fails the test.
func (c *Client) Send(event, channel string, data any) {
	c.tb.Helper()
	if err := c.Write(event, channel, data); err != nil {
		c.tb.Fatalf("send %s: %v", event, err)
	}
}

// Expect gives the next frame, which has to be one of these events. Counts of
// subscriptions are passed over unless they are expected.
func (c *Client) Expect(events ...string) Frame {
	c.tb.Helper()
	for {
		f := c.next(events)
		if slices.Contains(events, f.Event) {
			return f
		}
		if f.Event != "pusher_internal:subscription_count" {
			c.tb.Fatalf("got %s, want %v", f.Raw, events)
		}
	}
}

// Await gives the next frame with one of these events and passes over all
// others.
func (c *Client) Await(events ...string) Frame {
	c.tb.Helper()
	for {
		if f := c.next(events); slices.Contains(events, f.Event) {
			return f
		}
	}
}

func (c *Client) next(events []string) Frame {
	c.tb.Helper()
	f, err := c.Read()
	if err != nil {
		c.tb.Fatalf("waiting for %v: %v", events, err)
	}
	return f
}

// ExpectClose reads to the end of the connection, over anything, and gives
// the close code; 0 if it ended without one.
func (c *Client) ExpectClose() int {
	c.tb.Helper()
	for {
		_, err := c.Read()
		var closed wsutil.ClosedError
		switch {
		case err == nil:
		case errors.As(err, &closed):
			return int(closed.Code)
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrUnexpectedEOF):
			return 0
		default:
			c.tb.Fatalf("waiting for the close: %v", err)
		}
	}
}

// TrySubscribe asks for a channel, signed if the client has a secret, and
// does not wait for the answer. channelData is "" unless it is a presence
// channel.
func (c *Client) TrySubscribe(channel, channelData string) error {
	return c.TryResume(channel, channelData, nil)
}

// TryResume is TrySubscribe that keeps its place: wish is the value of
// "resume", nil for none.
func (c *Client) TryResume(channel, channelData string, wish any) error {
	data := map[string]any{"channel": channel}
	if channelData != "" {
		data["channel_data"] = channelData
	}
	if wish != nil {
		data["resume"] = wish
	}
	if c.secret != "" {
		data["auth"] = signature.Auth(c.key, c.secret, signature.Channel(c.SocketID, channel, channelData))
	}
	return c.Write("pusher:subscribe", "", data)
}

// Subscribe joins a channel and gives the answer.
func (c *Client) Subscribe(channel string) Frame {
	c.tb.Helper()
	return c.SubscribeWith(channel, "")
}

// Join joins a presence channel as user and gives the answer, the roster.
func (c *Client) Join(channel, user string) Frame {
	c.tb.Helper()
	return c.SubscribeWith(channel, ChannelData(user))
}

// ChannelData is how user shows in a presence channel.
func ChannelData(user string) string { return fmt.Sprintf(`{"user_id":%q}`, user) }

// SubscribeWith joins a channel with this channel data and gives the answer.
// What other channels deliver meanwhile fails the test.
func (c *Client) SubscribeWith(channel, channelData string) Frame {
	c.tb.Helper()
	if err := c.TrySubscribe(channel, channelData); err != nil {
		c.tb.Fatalf("subscribe to %s: %v", channel, err)
	}
	f := c.Expect("pusher_internal:subscription_succeeded")
	if f.Channel != channel {
		c.tb.Fatalf("got %s, want the answer for %s", f.Raw, channel)
	}
	return f
}

// SignIn makes the connection user's and gives the answer.
func (c *Client) SignIn(user string) Frame {
	c.tb.Helper()
	userData := fmt.Sprintf(`{"id":%q}`, user)
	c.Send("pusher:signin", "", map[string]string{
		"user_data": userData, "auth": signature.Auth(c.key, c.secret, signature.User(c.SocketID, userData)),
	})
	return c.Expect("pusher:signin_success")
}

// Members is who a presence channel's roster names, in its order.
func Members(succeeded Frame) []string {
	var data struct {
		Presence struct {
			IDs []string `json:"ids"`
		} `json:"presence"`
	}
	if json.Unmarshal([]byte(succeeded.Text()), &data) != nil {
		return nil
	}
	return data.Presence.IDs
}

// Member is who a member_added or member_removed is about.
func Member(f Frame) string {
	var data struct {
		UserID string `json:"user_id"`
	}
	_ = json.Unmarshal([]byte(f.Text()), &data) // about nobody
	return data.UserID
}
