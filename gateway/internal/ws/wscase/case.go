package wscase

import (
	"bytes"
	"fmt"
	"strings"
)

// Case is one conversation: what the client sends and what must come back.
type Case struct {
	Name string
	// Echo: the server must send messages back for the case to make sense.
	Echo bool
	// Handshake replaces the good handshake if it isn't "". %s is the path.
	Handshake string
	// Send is written piece by piece after the handshake was answered.
	Send [][]byte
	// Bytewise writes Send one byte at a time; Pipelined in one piece with
	// the handshake.
	Bytewise, Pipelined bool
	// Want is what must come back, in this order and nothing else. Unless it
	// ends in a close or a status, the case ends with a close handshake that
	// must be answered.
	Want []Want
}

// Want is one thing that must come back.
type Want struct {
	Op      byte   // Text, Binary, Pong or Close; 0 with Status
	Payload []byte // of messages and pongs
	Code    int    // of a close frame; 0 is a close frame without a code
	Status  int    // of an HTTP answer other than 101
	Header  string // that the HTTP answer must contain
}

func (w Want) String() string {
	if w.Status != 0 {
		return fmt.Sprintf("status %d %s", w.Status, w.Header)
	}
	if w.Op == Close {
		return fmt.Sprintf("close %d", w.Code)
	}
	return fmt.Sprintf("op %d %.60q", w.Op, w.Payload)
}

// Cases is the table, for a server that takes messages of up to
// messageBytesMax bytes.
func Cases(messageBytesMax int) []Case {
	var all []Case
	for _, part := range [][]Case{
		handshakes(), echoes(), fragments(), controls(), violations(), utf8Cases(), closes(), limits(messageBytesMax),
	} {
		all = append(all, part...)
	}
	return all
}

const good = "GET %s HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

func handshakes() []Case {
	edit := func(name, old, replacement string, status int, header string) Case {
		return Case{Name: "handshake " + name, Handshake: strings.Replace(good, old, replacement, 1), Want: []Want{{Status: status, Header: header}}}
	}
	return []Case{
		{Name: "handshake alone"},
		{Name: "handshake byte by byte", Bytewise: true, Handshake: good},
		{Name: "handshake in lower case", Handshake: strings.Replace(strings.Replace(good, "Upgrade: websocket", "upgrade: WebSocket", 1), "Connection: Upgrade", "connection: keep-alive, upgrade", 1)},
		edit("without upgrade", "Upgrade: websocket\r\n", "", 400, ""),
		edit("with another upgrade", "Upgrade: websocket", "Upgrade: h2c", 400, ""),
		edit("without connection", "Connection: Upgrade\r\n", "", 400, ""),
		edit("without host", "Host: example.com\r\n", "", 400, ""),
		edit("with two hosts", "Host: example.com\r\n", "Host: example.com\r\nHost: example.org\r\n", 400, ""),
		edit("without key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, ""),
		edit("with a short key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 400, ""),
		edit("with a key that isn't base64", "dGhlIHNhbXBsZSBub25jZQ==", "!!!!IHNhbXBsZSBub25jZQ==", 400, ""),
		edit("with version 8", "Version: 13", "Version: 8", 426, "Sec-WebSocket-Version: 13"),
		edit("without version", "Sec-WebSocket-Version: 13\r\n", "", 426, "Sec-WebSocket-Version: 13"),
		edit("by POST", "GET", "POST", 400, ""),
		edit("by HTTP/1.0", "HTTP/1.1", "HTTP/1.0", 400, ""),
		edit("by HTTP/2.0", "HTTP/1.1", "HTTP/2.0", 505, ""),
		edit("with a folded header", "Host: example.com", "Host:\r\n example.com", 400, ""),
		edit("with a bare line feed", "Host: example.com\r\n", "Host: example.com\n", 400, ""),
		edit("with a large header", "Host: example.com\r\n", "Host: example.com\r\nX: "+strings.Repeat("x", 17_000)+"\r\n", 431, ""),
	}
}

// echoed is a message that is sent in one frame and must come back.
func echoed(name string, op byte, payload []byte) Case {
	return Case{Name: name, Echo: true, Send: [][]byte{Frame(Fin|op, payload)}, Want: []Want{{Op: op, Payload: payload}}}
}

func echoes() []Case {
	cases := []Case{
		echoed("empty text", Text, nil), echoed("empty binary", Binary, nil),
		echoed("text", Text, []byte("hello")), echoed("binary", Binary, []byte{0, 0xff, 0x80}),
	}
	for _, n := range []int{125, 126, 127, 128, 4096} {
		cases = append(cases, echoed(fmt.Sprintf("text of %d bytes", n), Text, bytes.Repeat([]byte("x"), n)))
	}
	slow := echoed("text byte by byte", Text, []byte("grüße, €, 𝄞"))
	slow.Bytewise = true
	many := Case{Name: "many frames in one segment", Echo: true, Send: [][]byte{nil}}
	for i := range 50 {
		payload := fmt.Appendf(nil, "message %d", i)
		many.Send[0] = append(many.Send[0], Frame(Fin|Text, payload)...)
		many.Want = append(many.Want, Want{Op: Text, Payload: payload})
	}
	behind := many
	behind.Name, behind.Pipelined = "many frames behind the handshake", true
	split := echoed("frame cut in its header", Text, bytes.Repeat([]byte("y"), 300))
	split.Send = [][]byte{split.Send[0][:3], split.Send[0][3:7], split.Send[0][7:]}
	return append(cases, slow, many, behind, split)
}

func fragments() []Case {
	two := [][]byte{Frame(Text, []byte("hel")), Frame(Fin|Continuation, []byte("lo"))}
	hello := []Want{{Op: Text, Payload: []byte("hello")}}
	ping, pong := Frame(Fin|Ping, []byte("p")), Want{Op: Pong, Payload: []byte("p")}
	long := Case{Name: "fragmented into 200", Echo: true, Send: [][]byte{Frame(Text, []byte("a"))}, Want: []Want{{Op: Text, Payload: bytes.Repeat([]byte("a"), 200)}}}
	for range 198 {
		long.Send = append(long.Send, Frame(Continuation, []byte("a")))
	}
	long.Send = append(long.Send, Frame(Fin|Continuation, []byte("a")))
	return []Case{
		{Name: "fragmented in two", Echo: true, Send: two, Want: hello},
		{Name: "fragmented in two, byte by byte", Echo: true, Bytewise: true, Send: two, Want: hello},
		{Name: "fragmented in one segment", Echo: true, Send: [][]byte{append(bytes.Clone(two[0]), two[1]...)}, Want: hello},
		{Name: "fragmented with empty ends", Echo: true, Send: [][]byte{Frame(Binary, nil), Frame(Continuation, []byte("b")), Frame(Fin|Continuation, nil)}, Want: []Want{{Op: Binary, Payload: []byte("b")}}},
		{Name: "fragmented, all empty", Echo: true, Send: [][]byte{Frame(Text, nil), Frame(Continuation, nil), Frame(Fin|Continuation, nil)}, Want: []Want{{Op: Text}}},
		{Name: "ping between fragments", Echo: true, Send: [][]byte{two[0], ping, two[1]}, Want: []Want{pong, hello[0]}},
		{Name: "pings and pongs between fragments, byte by byte", Echo: true, Bytewise: true, Send: [][]byte{two[0], ping, Frame(Fin|Pong, nil), ping, two[1]}, Want: []Want{pong, pong, hello[0]}},
		{Name: "two fragmented messages", Echo: true, Send: [][]byte{two[0], two[1], two[0], two[1]}, Want: []Want{hello[0], hello[0]}},
		long,
		{Name: "continuation of nothing", Send: [][]byte{Frame(Fin|Continuation, []byte("x"))}, Want: []Want{{Op: Close, Code: 1002}}},
		{Name: "unfinished continuation of nothing", Send: [][]byte{Frame(Continuation, []byte("x"))}, Want: []Want{{Op: Close, Code: 1002}}},
		{Name: "continuation after a whole message", Echo: true, Send: [][]byte{Frame(Fin|Text, []byte("a")), Frame(Fin|Continuation, nil)}, Want: []Want{{Op: Text, Payload: []byte("a")}, {Op: Close, Code: 1002}}},
		{Name: "text inside a fragmented message", Send: [][]byte{two[0], Frame(Fin|Text, []byte("x"))}, Want: []Want{{Op: Close, Code: 1002}}},
		{Name: "binary begun inside a fragmented message", Send: [][]byte{two[0], Frame(Binary, []byte("x"))}, Want: []Want{{Op: Close, Code: 1002}}},
		{Name: "close inside a fragmented message", Send: [][]byte{two[0], Frame(Fin|Close, CloseBody(1000, ""))}, Want: []Want{{Op: Close, Code: 1000}}},
	}
}

func controls() []Case {
	full := bytes.Repeat([]byte("p"), 125)
	flood := Case{Name: "100 pings in one segment", Send: [][]byte{nil}}
	for i := range 100 {
		payload := fmt.Appendf(nil, "%d", i)
		flood.Send[0] = append(flood.Send[0], Frame(Fin|Ping, payload)...)
		flood.Want = append(flood.Want, Want{Op: Pong, Payload: payload})
	}
	return []Case{
		{Name: "empty ping", Send: [][]byte{Frame(Fin|Ping, nil)}, Want: []Want{{Op: Pong}}},
		{Name: "ping of 125 bytes", Send: [][]byte{Frame(Fin|Ping, full)}, Want: []Want{{Op: Pong, Payload: full}}},
		{Name: "ping with bytes that aren't UTF-8", Send: [][]byte{Frame(Fin|Ping, []byte{0xff, 0, 0xfe})}, Want: []Want{{Op: Pong, Payload: []byte{0xff, 0, 0xfe}}}},
		{Name: "ping of 125 bytes, byte by byte", Bytewise: true, Send: [][]byte{Frame(Fin|Ping, full)}, Want: []Want{{Op: Pong, Payload: full}}},
		{Name: "ping of 126 bytes", Send: [][]byte{Frame(Fin|Ping, append(full, 'p'))}, Want: []Want{{Op: Close, Code: 1002}}},
		{Name: "fragmented ping", Send: [][]byte{Frame(Ping, []byte("p")), Frame(Fin|Continuation, nil)}, Want: []Want{{Op: Close, Code: 1002}}},
		{Name: "fragmented pong", Send: [][]byte{Frame(Pong, []byte("p"))}, Want: []Want{{Op: Close, Code: 1002}}},
		{Name: "unasked pong", Send: [][]byte{Frame(Fin|Pong, []byte("x")), Frame(Fin|Ping, []byte("y"))}, Want: []Want{{Op: Pong, Payload: []byte("y")}}},
		flood,
	}
}

func violations() []Case {
	var cases []Case
	for _, op := range []byte{3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		cases = append(cases, Case{Name: fmt.Sprintf("reserved opcode %d", op), Send: [][]byte{Frame(Fin|op, nil)}, Want: []Want{{Op: Close, Code: 1002}}})
	}
	for _, rsv := range []byte{0x40, 0x20, 0x10, 0x70} {
		for _, op := range []byte{Text, Ping} {
			cases = append(cases, Case{Name: fmt.Sprintf("reserved bits %#x on opcode %d", rsv, op), Send: [][]byte{Frame(Fin|rsv|op, []byte("x"))}, Want: []Want{{Op: Close, Code: 1002}}})
		}
	}
	refused := []Want{{Op: Close, Code: 1002}}
	padded := append([]byte{Fin | Text, 0x80 | 126, 0, 5, 0, 0, 0, 0}, "hello"...)
	return append(
		cases,
		Case{Name: "unmasked text", Send: [][]byte{Unmasked(Fin|Text, []byte("hello"))}, Want: refused},
		Case{Name: "unmasked ping", Send: [][]byte{Unmasked(Fin|Ping, nil)}, Want: refused},
		Case{Name: "unmasked close", Send: [][]byte{Unmasked(Fin|Close, nil)}, Want: refused},
		Case{Name: "length with its highest bit set", Send: [][]byte{{Fin | Binary, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4}}, Want: refused},
		Case{Name: "length that isn't minimal", Send: [][]byte{padded}, Want: refused},
		Case{Name: "good message before a bad frame", Echo: true, Send: [][]byte{append(Frame(Fin|Text, []byte("a")), Frame(Fin|3, nil)...)}, Want: []Want{{Op: Text, Payload: []byte("a")}, refused[0]}},
		Case{Name: "nothing is read after a bad frame", Send: [][]byte{append(Frame(Fin|3, nil), Frame(Fin|Ping, nil)...)}, Want: refused},
	)
}

func utf8Cases() []Case {
	bad := func(name string, frames ...[]byte) Case {
		return Case{Name: "UTF-8: " + name, Send: frames, Want: []Want{{Op: Close, Code: 1007}}}
	}
	return []Case{
		{Name: "UTF-8: character cut by fragments", Echo: true, Send: [][]byte{Frame(Text, []byte("a\xf0\x9d")), Frame(Continuation, []byte("\x84")), Frame(Fin|Continuation, []byte("\x9eb"))}, Want: []Want{{Op: Text, Payload: []byte("a𝄞b")}}},
		{Name: "UTF-8: highest character", Echo: true, Send: [][]byte{Frame(Fin|Text, []byte("\xf4\x8f\xbf\xbf"))}, Want: []Want{{Op: Text, Payload: []byte("\xf4\x8f\xbf\xbf")}}},
		{Name: "UTF-8: not in binary", Echo: true, Send: [][]byte{Frame(Binary, []byte("\xff")), Frame(Fin|Continuation, []byte("\xc3"))}, Want: []Want{{Op: Binary, Payload: []byte("\xff\xc3")}}},
		bad("invalid byte", Frame(Fin|Text, []byte("a\xffb"))),
		bad("truncated character", Frame(Fin|Text, []byte("a\xe2\x82"))),
		bad("overlong", Frame(Fin|Text, []byte("\xc0\xaf"))),
		bad("surrogate", Frame(Fin|Text, []byte("\xed\xa0\x80"))),
		bad("above U+10FFFF", Frame(Fin|Text, []byte("\xf4\x90\x80\x80"))),
		bad("truncated at the last fragment", Frame(Text, []byte("a\xe2")), Frame(Fin|Continuation, []byte("\x82"))),
		bad("invalid across fragments, before the last", Frame(Text, []byte("a\xe2")), Frame(Continuation, []byte("a"))),
		bad("invalid at the start of a long frame", Frame(Fin|Text, append([]byte("\xff"), bytes.Repeat([]byte("a"), 2000)...))[:100]),
	}
}

func closes() []Case {
	answered := func(name string, body []byte, code int) Case {
		return Case{Name: "close " + name, Send: [][]byte{Frame(Fin|Close, body)}, Want: []Want{{Op: Close, Code: code}}}
	}
	cases := []Case{
		answered("without a code", nil, 0),
		answered("with a one byte body", []byte{3}, 1002),
		answered("with a reason", CloseBody(1000, "bye, grüße"), 1000),
		answered("with the longest reason", CloseBody(1000, strings.Repeat("r", 123)), 1000),
		answered("with a body of 126 bytes", CloseBody(1000, strings.Repeat("r", 124)), 1002),
		answered("with a reason that isn't UTF-8", CloseBody(1000, "\xff"), 1007),
		{Name: "close, then more", Send: [][]byte{append(Frame(Fin|Close, CloseBody(1001, "")), Frame(Fin|Ping, nil)...)}, Want: []Want{{Op: Close, Code: 1001}}},
		{Name: "fragmented close", Send: [][]byte{Frame(Close, CloseBody(1000, ""))}, Want: []Want{{Op: Close, Code: 1002}}},
		{Name: "close byte by byte", Bytewise: true, Send: [][]byte{Frame(Fin|Close, CloseBody(3000, "x"))}, Want: []Want{{Op: Close, Code: 3000}}},
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		cases = append(cases, answered(fmt.Sprintf("code %d", code), CloseBody(code, ""), code))
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		cases = append(cases, answered(fmt.Sprintf("bad code %d", code), CloseBody(code, ""), 1002))
	}
	return cases
}

func limits(messageBytesMax int) []Case {
	tooBig := []Want{{Op: Close, Code: 1009}}
	half := bytes.Repeat([]byte("h"), messageBytesMax/2)
	over := Frame(Fin|Binary, make([]byte, messageBytesMax+1))
	return []Case{
		echoed("largest message", Binary, bytes.Repeat([]byte{1}, messageBytesMax)),
		{Name: "too large a message", Send: [][]byte{over}, Want: tooBig},
		{Name: "too large a message, only its header sent", Send: [][]byte{over[:14]}, Want: tooBig},
		{Name: "fragments that add up to too much", Send: [][]byte{Frame(Binary, half), Frame(Continuation, half), Frame(Fin|Continuation, []byte("more"))}, Want: tooBig},
		{Name: "declared length of 2^62", Send: [][]byte{{Fin | Binary, 0x80 | 127, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}}, Want: tooBig},
	}
}
