package dialect

import (
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/framing"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
)

// HTTP is a protocol whose clients come by HTTP exchanges, because they can't
// use WebSockets: its Hello never recognizes a request.
type HTTP interface {
	Protocol
	// Transport says how such clients are written to.
	Transport() *Transport
	// Request reads the head of a request that is not a preflight. It returns
	// false when it does not belong to this protocol. What it returns may alias
	// head.
	Request(head *httphead.Head) (Request, bool)
	// Post reads the body of a request that brings messages of a client. The
	// error says what is wrong with it. What it returns may alias body.
	Post(req *Request, body []byte) (Post, error)
}

// Alike is implemented by HTTP dialects some of which have the same views in
// the same framing: what they have in common is encoded once.
type Alike interface {
	// Views is dialect.Protocol's; those of dialects with equal ViewsFrom are
	// the same.
	Views() []View
	ViewsFrom() any
}

// Transport is how clients are written to that come by HTTP exchanges. It is
// immutable.
type Transport struct {
	Framing framing.Framing
	// StreamName and PollName are what applications are told of how a client is
	// connected that streams, or polls.
	StreamName, PollName string
	// ContentType of streams and of the answers to polls.
	ContentType string
	// Prelude begins a stream. Opening is the first thing that a new session
	// says; Beat what is said every BeatEvery, so that nobody between takes the
	// exchange for dead. All are complete as they are; "" is nothing.
	Prelude, Opening, Beat string
	BeatEvery              time.Duration
	// StreamBytesMax is how much a client is sent with one stream before it has
	// to ask for another one; 0 is no limit.
	StreamBytesMax int
	// Linger is how long a session outlives its last exchange. 0: it ends with
	// the stream that it began with.
	Linger time.Duration
}

// RequestKind is what an HTTP request is about.
type RequestKind uint8

// Kinds of requests.
const (
	Fixed  RequestKind = iota // Status, Type and Body answer it
	Stream                    // begins a session, or goes on with one, with a response without an end
	Poll                      // the same with one answer
	Send                      // brings messages
)

// Request is what a client wants with an HTTP request.
type Request struct {
	Kind RequestKind
	// Hello of a client with which a session begins.
	Hello Hello
	// Session is what the client calls its session, unique among those of all
	// protocols. "" where the gateway names it.
	Session string
	// First is what a new session hears first, where the query says it; for Post
	// to make messages of.
	First []byte
	// of Fixed
	Status int
	Type   string
	Header string // further lines, each with its CR LF
	Body   string
}

// Post is what the body of a request brings.
type Post struct {
	// Node and ID name the session for which the messages are, where the
	// gateway has named it and the client says so in the body.
	Node, ID string
	// Messages are those of the client, in order; a Stream's are what its
	// session hears first.
	Messages [][]byte
}
