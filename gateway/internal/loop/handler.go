package loop

// Handler is the code that runs on one loop: one value per loop, and every
// method is called on that loop's thread only, so it needs no locks. It must
// not block. M is the type of the loop's mail.
//
// No method is called from within another. Between the writes of a long flush
// input is served, so Request, Open, Message and Closed may come after EndTurn
// and before everything queued by it has been written.
type Handler[M any] interface {
	// Request decides what becomes of a connection whose request head is
	// complete. Head and its strings are valid during the call only: they
	// share the loop's read buffer, so what is kept must be cloned. Sending
	// and Close have no effect before Open; Abort does.
	Request(c *Conn, head *Head) Verdict
	// Open is called after the WebSocket upgrade was answered.
	Open(c *Conn)
	// Message is called with each complete message. The payload is valid
	// during the call only; text has been checked to be UTF-8.
	Message(c *Conn, text bool, payload []byte)
	// Closed is called exactly once for every Open, in the turn in which the
	// connection ended: its socket may live on for a while, to say goodbye.
	// The connection can no longer be written to, its handle names nothing,
	// and its slot is not used again before the next turn.
	Closed(c *Conn, why Closure)
	// Tick is called when the time set by Conn.SetTimer has come. now is the
	// loop's monotonic time in nanoseconds (see Loop.Now).
	Tick(c *Conn, now int64)
	// Mail is called with what other goroutines posted, in the order posted.
	// The slice is valid during the call only.
	Mail(items []M)
	// EndTurn is called after all input of a turn and before its writes:
	// this is where fan-out is expanded to the subscribers. It is called in
	// every turn, whether there was input or not.
	EndTurn()
}

// Handle names a connection from outside its loop. A handle whose connection
// is gone names nothing: generations are never reused within 2^32 lives of a
// slot.
type Handle struct {
	Loop int32
	Slot int32
	Gen  uint32
}

// Verdict is the answer to a request head.
type Verdict struct {
	Action Action
	// Protocol is the subprotocol to confirm in an upgrade, or "".
	Protocol string
	// BodyMax is the largest body in bytes of a request to Serve; larger ones
	// are answered 413.
	BodyMax int
	// Status and Body answer a refused request (plain text). 429 and 503
	// carry Retry-After.
	Status int
	Body   string
}

// Action is what becomes of a connection after its request head.
type Action uint8

const (
	// Upgrade makes it a WebSocket. The loop itself checks the handshake
	// headers (RFC 6455 4.2.1) and answers 400 or 426 when they are wrong.
	Upgrade Action = iota
	// HandOver gives it to net/http with the bytes read so far.
	HandOver
	// Refuse answers Status and Body and closes.
	Refuse
	// Serve has the handler, which must be an Exchanger, answer the request
	// once its body is there.
	Serve
)
