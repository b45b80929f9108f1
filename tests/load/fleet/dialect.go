package fleet

// Dialect is how the clients of one protocol speak. It keeps no state: the
// fleet brings what a message needs.
type Dialect interface {
	// Path is what a client asks for in its request, with the query.
	Path() string
	// Greeted says whether the server speaks first: a client subscribes after
	// its greeting, or else at once.
	Greeted() bool
	// AppendHello appends what a client says first; most say nothing.
	AppendHello(dst []byte, client int) []byte
	// AppendSubscribe appends what subscribes a client to a channel, and
	// AppendUnsubscribe what ends that. Both append messages through text.
	AppendSubscribe(dst []byte, client int, socketID, channel string) []byte
	AppendUnsubscribe(dst []byte, channel string) []byte
	// AppendPing appends what an idle client sends to show that it is there;
	// nothing if clients say nothing by themselves.
	AppendPing(dst []byte) []byte
	// Receive reads a message that carries no stamp.
	Receive(message []byte) Received
}

// Packer is a Dialect whose servers may pack several messages into one frame.
type Packer interface {
	// Cut takes the first message off a frame's payload.
	Cut(payload []byte) (message, rest []byte)
}

// Resumer is a Dialect whose clients can keep their place in a channel.
type Resumer interface {
	// AppendResume is AppendSubscribe for a client that has come to position of
	// epoch, or has no place yet if epoch is "".
	AppendResume(dst []byte, client int, socketID, channel, position, epoch string) []byte
	// Place reads the place from a message: of a subscription the epoch and
	// whether everything that was missed follows, of an event the position.
	Place(message []byte) Place
}

// Place is where a client is in a channel. Its slices share the message's
// memory.
type Place struct {
	Position, Epoch []byte
	Recovered       bool
}

// Kind is what a message of the server says.
type Kind uint8

// Kinds.
const (
	Other      Kind = iota // nothing that the fleet acts on
	Greeting               // the connection is made; SocketID is its id
	Subscribed             // one subscription is complete
	Refused                // a request was refused; Text says why
	Ping                   // Reply is the answer that the server wants
)

// Received is a message as the fleet understands it. Its slices share the
// message's memory.
type Received struct {
	Kind     Kind
	SocketID []byte
	Text     []byte
	Reply    []byte
}
