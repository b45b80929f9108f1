package fleet

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strconv"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/wire"
)

// Centrifugo speaks the bidirectional protocol of Centrifugo, in JSON or
// Protobuf. With a secret, clients connect with a token that is signed with it
// (HS256), as user "u<n>", and subscribe to channels that need one with a
// token of their own. Without one they are anonymous.
type Centrifugo struct {
	Protobuf bool
	Secret   string
	// App is the key or id of the app, where the server has several.
	App string
}

// Path implements Dialect.
func (c Centrifugo) Path() string {
	path := "/connection/websocket?app=" + c.App
	if c.Protobuf {
		path += "&format=protobuf"
	}
	return path
}

// Greeted implements Dialect: the answer to the connect command is what a
// client waits for.
func (Centrifugo) Greeted() bool { return true }

// Numbers of messages in the protocol's definition.
const (
	commandID          = 1
	commandConnect     = 4
	commandSubscribe   = 5
	commandUnsubscribe = 6
	replyError         = 2
	replyPush          = 4
	replyConnect       = 5
	replySubscribe     = 6
	wireVarint         = 0
	wireBytes          = 2
)

// AppendHello implements Dialect.
func (c Centrifugo) AppendHello(dst []byte, client int) []byte {
	token := ""
	if c.Secret != "" {
		token = c.token(client, "")
	}
	if c.Protobuf {
		return c.append(dst, commandConnect, appendField(nil, 1, token))
	}
	return c.append(dst, commandConnect, []byte(`"connect":{"token":"`+token+`"}`))
}

// AppendSubscribe implements Dialect.
func (c Centrifugo) AppendSubscribe(dst []byte, client int, _, name string) []byte {
	token := ""
	if c.Secret != "" && channel.KindOf(name).Private {
		token = c.token(client, name)
	}
	if c.Protobuf {
		return c.append(dst, commandSubscribe, appendField(appendField(nil, 1, name), 2, token))
	}
	body := `"subscribe":{"channel":` + strconv.Quote(name)
	if token != "" {
		body += `,"token":"` + token + `"`
	}
	return c.append(dst, commandSubscribe, []byte(body+"}"))
}

// AppendUnsubscribe implements Dialect.
func (c Centrifugo) AppendUnsubscribe(dst []byte, name string) []byte {
	if c.Protobuf {
		return c.append(dst, commandUnsubscribe, appendField(nil, 1, name))
	}
	return c.append(dst, commandUnsubscribe, []byte(`"unsubscribe":{"channel":`+strconv.Quote(name)+`}`))
}

// append appends a command as a frame. Its id is its kind: nobody waits for a
// certain answer.
func (c Centrifugo) append(dst []byte, kind int, body []byte) []byte {
	if !c.Protobuf {
		return AppendText(dst, []byte(`{"id":`+strconv.Itoa(kind)+`,`+string(body)+`}`))
	}
	command := append([]byte{commandID<<3 | wireVarint, byte(kind), byte(kind)<<3 | wireBytes}, wire.AppendString(nil, body)...)
	return appendFrame(dst, opBinary, wire.AppendString(nil, command))
}

// appendField appends a string of a Protobuf message, unless it is empty.
func appendField(dst []byte, number byte, s string) []byte {
	if s == "" {
		return dst
	}
	return wire.AppendString(append(dst, number<<3|wireBytes), s)
}

// token is a connection token, or one for a channel.
func (c Centrifugo) token(client int, name string) string {
	claims := `{"sub":"u` + strconv.Itoa(client) + `"`
	if name != "" {
		claims += `,"channel":` + strconv.Quote(name)
	}
	signed := encode64(`{"alg":"HS256","typ":"JWT"}`) + "." + encode64(claims+"}")
	mac := hmac.New(sha256.New, []byte(c.Secret))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func encode64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// AppendPing implements Dialect. Clients of this protocol only answer pings:
// one that nobody has asked for is a fault.
func (Centrifugo) AppendPing(dst []byte) []byte { return dst }

// Cut implements Packer: messages are separated by line ends, or have their
// length in front.
func (c Centrifugo) Cut(payload []byte) (message, rest []byte) {
	if !c.Protobuf {
		message, rest, _ = bytes.Cut(payload, []byte{'\n'})
		return message, rest
	}
	size, n := uvarint(payload)
	if n == 0 || size > uint64(len(payload)-n) {
		return payload, nil
	}
	return payload[n : n+int(size)], payload[n+int(size):]
}

// uvarint reads a varint of up to 28 bits; n is 0 if there is none.
func uvarint(b []byte) (v uint64, n int) {
	for i := 0; i < len(b) && i < 4; i++ {
		v |= uint64(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

var (
	centrifugoSubscribed = []byte(`"subscribe":{`)
	centrifugoConnected  = []byte(`"connect":{`)
	centrifugoError      = []byte(`"error":{`)
	centrifugoPush       = []byte(`"push":{`)
	centrifugoPong       = AppendText(nil, []byte(`{}`))
	centrifugoPongBinary = appendFrame(nil, opBinary, []byte{0})
)

// Receive implements Dialect.
func (c Centrifugo) Receive(m []byte) Received {
	if c.Protobuf {
		return receiveProtobuf(m)
	}
	switch {
	case len(m) == 2:
		return Received{Kind: Ping, Reply: centrifugoPong}
	case bytes.Contains(m, centrifugoPush):
		return Received{}
	case bytes.Contains(m, centrifugoError):
		return Received{Kind: Refused, Text: m}
	case bytes.Contains(m, centrifugoSubscribed):
		return Received{Kind: Subscribed}
	case bytes.Contains(m, centrifugoConnected):
		_, rest, _ := bytes.Cut(m, []byte(`"client":"`))
		id, _, _ := bytes.Cut(rest, []byte{'"'})
		return Received{Kind: Greeting, SocketID: id}
	}
	return Received{}
}

// receiveProtobuf looks at the first field besides the id: a reply has one.
func receiveProtobuf(m []byte) Received {
	if len(m) == 0 {
		return Received{Kind: Ping, Reply: centrifugoPongBinary}
	}
	if m[0] == commandID<<3|wireVarint {
		_, n := uvarint(m[1:])
		m = m[1+n:]
	}
	if len(m) == 0 {
		return Received{}
	}
	switch m[0] >> 3 {
	case replyError:
		return Received{Kind: Refused, Text: m}
	case replySubscribe:
		return Received{Kind: Subscribed}
	case replyConnect: // its first field is the client's id
		_, n := uvarint(m[1:])
		body := m[min(1+n, len(m)):]
		if len(body) < 2 || body[0] != 1<<3|wireBytes {
			return Received{Kind: Greeting}
		}
		size, n := uvarint(body[1:])
		body = body[1+n:]
		return Received{Kind: Greeting, SocketID: body[:min(int(size), len(body))]}
	case replyPush:
	}
	return Received{}
}
