package fleet

import (
	"bytes"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/signature"
)

// Pusher speaks the Pusher protocol, version 7. With a secret it signs
// subscriptions of private and presence channels as the application's
// authorization endpoint would: member n is user "u<n>".
type Pusher struct {
	Key, Secret string
}

// Path implements Dialect.
func (p Pusher) Path() string {
	return "/app/" + url.PathEscape(p.Key) + "?protocol=7&client=carillon-bench&version=1"
}

// Greeted implements Dialect.
func (Pusher) Greeted() bool { return true }

// AppendHello implements Dialect.
func (Pusher) AppendHello(dst []byte, _ int) []byte { return dst }

// AppendSubscribe implements Dialect.
func (p Pusher) AppendSubscribe(dst []byte, client int, socketID, name string) []byte {
	return p.appendSubscribe(dst, client, socketID, name, "")
}

// AppendResume implements Resumer.
func (p Pusher) AppendResume(dst []byte, client int, socketID, name, position, epoch string) []byte {
	place := `,"resume":{}`
	if epoch != "" {
		place = `,"resume":{"position":"` + position + `","epoch":"` + epoch + `"}`
	}
	return p.appendSubscribe(dst, client, socketID, name, place)
}

func (p Pusher) appendSubscribe(dst []byte, client int, socketID, name, more string) []byte {
	kind := channel.KindOf(name)
	data := ""
	if kind.Presence {
		data = fmt.Sprintf(`{"user_id":"u%d","user_info":{"n":%d}}`, client, client)
	}
	msg := `{"event":"pusher:subscribe","data":{"channel":` + strconv.Quote(name)
	if kind.Private || kind.Presence {
		msg += `,"auth":"` + signature.Auth(p.Key, p.Secret, signature.Channel(socketID, name, data)) + `"`
	}
	if data != "" {
		msg += `,"channel_data":` + strconv.Quote(data)
	}
	return AppendText(dst, []byte(msg+more+"}}"))
}

// Place implements Resumer.
func (Pusher) Place(m []byte) (at Place) {
	at.Position = behind(m, `"position":"`, '"')
	if at.Position == nil { // in a subscription's data, which is quoted
		at.Position = behind(m, `\"position\":\"`, '\\')
	}
	at.Epoch = behind(m, `\"epoch\":\"`, '\\')
	at.Recovered = bytes.Contains(m, []byte(`\"recovered\":true`))
	return at
}

// behind gives what follows the last mark, up to end; nil without a mark.
func behind(m []byte, mark string, end byte) []byte {
	i := bytes.LastIndex(m, []byte(mark))
	if i < 0 {
		return nil
	}
	m = m[i+len(mark):]
	if j := bytes.IndexByte(m, end); j >= 0 {
		return m[:j]
	}
	return nil
}

// AppendUnsubscribe implements Dialect.
func (Pusher) AppendUnsubscribe(dst []byte, name string) []byte {
	return AppendText(dst, []byte(`{"event":"pusher:unsubscribe","data":{"channel":`+strconv.Quote(name)+`}}`))
}

// AppendPing implements Dialect.
func (Pusher) AppendPing(dst []byte) []byte {
	return AppendText(dst, []byte(`{"event":"pusher:ping","data":{}}`))
}

var (
	pusherEstablished = []byte("pusher:connection_established")
	pusherSucceeded   = []byte(":subscription_succeeded")
	pusherPing        = []byte(`"pusher:ping"`)
	pusherError       = []byte("pusher:error")
	pusherRefused     = []byte("pusher:subscription_error")
	pusherPong        = AppendText(nil, []byte(`{"event":"pusher:pong","data":{}}`))
)

// Receive implements Dialect. It looks for words instead of parsing: the
// generator has to be cheaper than what it measures.
func (Pusher) Receive(m []byte) Received {
	switch {
	case bytes.Contains(m, pusherSucceeded):
		return Received{Kind: Subscribed}
	case bytes.Contains(m, pusherEstablished):
		_, rest, _ := bytes.Cut(m, []byte(`socket_id\":\"`))
		id, _, _ := bytes.Cut(rest, []byte(`\"`))
		return Received{Kind: Greeting, SocketID: id}
	case bytes.Contains(m, pusherPing):
		return Received{Kind: Ping, Reply: pusherPong}
	case bytes.Contains(m, pusherError), bytes.Contains(m, pusherRefused):
		return Received{Kind: Refused, Text: m}
	}
	return Received{}
}

// Raw speaks plain WebSocket: nothing is asked for, every connection gets
// everything that the server sends.
type Raw struct {
	// At is the path of the WebSocket, "/" if empty.
	At string
}

// Path implements Dialect.
func (r Raw) Path() string { return "/" + strings.TrimPrefix(r.At, "/") }

// Greeted implements Dialect.
func (Raw) Greeted() bool { return false }

// AppendHello implements Dialect.
func (Raw) AppendHello(dst []byte, _ int) []byte { return dst }

// AppendSubscribe implements Dialect.
func (Raw) AppendSubscribe(dst []byte, _ int, _, _ string) []byte { return dst }

// AppendUnsubscribe implements Dialect.
func (Raw) AppendUnsubscribe(dst []byte, _ string) []byte { return dst }

// AppendPing implements Dialect.
func (Raw) AppendPing(dst []byte) []byte { return appendFrame(dst, opPing, nil) }

// Receive implements Dialect.
func (Raw) Receive([]byte) Received { return Received{} }
