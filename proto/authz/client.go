package authz

// Client is the connection on whose behalf something is asked, for dialects
// whose connections have credentials of their own.
type Client struct {
	App string `json:"app"`
	// ID names the connection in the cluster: its socket id.
	ID string `json:"id"`
	// User is whom the connection acts as, "" before it is known and for
	// anonymous connections.
	User string `json:"user,omitempty"`
	// Transport is "websocket", "http_stream", "sse", "uni_websocket",
	// "uni_sse" or "uni_http_stream"; Protocol the dialect, "centrifugo";
	// Encoding "json" or "binary", which is how the client's data is written.
	Transport string `json:"transport,omitempty"`
	Protocol  string `json:"protocol,omitempty"`
	Encoding  string `json:"encoding,omitempty"`
	// Info and Meta are what the connect decision said of the connection:
	// JSON, or "".
	Info string `json:"info,omitempty"`
	Meta string `json:"meta,omitempty"`
	// Claims are those of the connection's token, JSON, with what conditions
	// may be asked about: Subscribe and Publish. See Credentials.Claims.
	Claims string `json:"claims,omitempty"`
	// Headers are those of the request that some hook of the app may see, with
	// names in lower case.
	Headers map[string]string `json:"headers,omitempty"`
	// Emulated are headers that the client wrote into its connect command, as
	// browsers can't set real ones.
	Emulated map[string]string `json:"emulated,omitempty"`
}

// Connect asks whether a connection may be, and who it is: by its token, else
// by the app's connect hook, else anonymous where that is allowed. Who has
// shown nothing is refused as Forbidden.
// Subject: subject.AuthConnect.
type Connect struct {
	Client
	Token    string   `json:"token,omitempty"`
	Data     []byte   `json:"data,omitempty"`
	Name     string   `json:"name,omitempty"`    // of the client's SDK
	Version  string   `json:"version,omitempty"` // of the client's application
	Channels []string `json:"channels,omitempty"`
}

// Refresh asks whether a connection may live longer: by a new token, or the
// refresh hook if Token is "". That it ends is Credentials.Expired of an
// answer that allows. Subject: subject.AuthRefresh.
type Refresh struct {
	Client
	Token string `json:"token,omitempty"`
}

// SubRefresh asks the same of a subscription. Subject: subject.AuthSubRefresh.
type SubRefresh struct {
	Client
	Channel string `json:"channel"`
	Token   string `json:"token,omitempty"`
}

// Publish asks whether a connection may publish to a channel.
// Subject: subject.AuthPublish.
type Publish struct {
	Client
	Channel string `json:"channel"`
	Data    []byte `json:"data,omitempty"`
	// Subscribed: the connection is subscribed to the channel now. Granted: the
	// subscription's grant allows it to publish.
	Subscribed bool `json:"subscribed,omitempty"`
	Granted    bool `json:"granted,omitempty"`
}

// RPC carries a client's call to the application. Subject: subject.AuthRPC.
type RPC struct {
	Client
	Method string `json:"method"`
	Data   []byte `json:"data,omitempty"`
}

// CacheEmpty tells the application that somebody subscribes to a channel that
// has no last value, so that it can publish one. A decision that allows says
// that it has answered. Subject: subject.AuthCacheEmpty.
type CacheEmpty struct {
	App     string `json:"app"`
	Channel string `json:"channel"`
}

// Grant is what a subscription is allowed, and given, beyond being there.
type Grant struct {
	// ExpireAt is when the subscription ends unless it is refreshed, in Unix
	// seconds; 0 is never.
	ExpireAt int64 `json:"expire_at,omitempty"`
	// Info is the channel's info of the member, JSON or "".
	Info string `json:"info,omitempty"`
	// Data goes to the client with the answer.
	Data []byte `json:"data,omitempty"`
	// Options of the channel's policy that count differently here; nil leaves
	// the policy's.
	Presence       *bool `json:"presence,omitempty"`
	JoinLeave      *bool `json:"join_leave,omitempty"`
	ForceJoinLeave *bool `json:"force_join_leave,omitempty"`
	ForcePosition  *bool `json:"force_position,omitempty"`
	ForceRecovery  *bool `json:"force_recovery,omitempty"`
	// Publish, History and ReadPresence allow what the policy may not.
	Publish      bool `json:"publish,omitempty"`
	History      bool `json:"history,omitempty"`
	ReadPresence bool `json:"read_presence,omitempty"`
}

// Credentials is what a decision says of a connection: the answer to Connect
// and Refresh.
type Credentials struct {
	User string `json:"user,omitempty"`
	// ExpireAt in Unix seconds, 0 is never. ServerRefresh: the server asks for
	// a refresh by itself, and the client is not told of it.
	ExpireAt      int64 `json:"expire_at,omitempty"`
	ServerRefresh bool  `json:"server_refresh,omitempty"`
	// Expired answers a refresh: the connection ends.
	Expired bool   `json:"expired,omitempty"`
	Info    string `json:"info,omitempty"`
	Meta    string `json:"meta,omitempty"`
	// Claims are all claims of the token, JSON, if a condition of the app looks
	// at claims; else "".
	Claims string `json:"claims,omitempty"`
	Data   []byte `json:"data,omitempty"`
	// Subs are the channels that the server subscribes the connection to.
	Subs map[string]Grant `json:"subs,omitempty"`
}

// Verdict is the application's own answer to a client: an error of its reply,
// or the end of the connection.
type Verdict struct {
	Disconnect bool   `json:"disconnect,omitempty"`
	Code       uint32 `json:"code"`
	Text       string `json:"text,omitempty"` // message of the error, reason of the disconnect
	Temporary  bool   `json:"temporary,omitempty"`
}

// Edited is what the publish hook made of a publication.
type Edited struct {
	Data           []byte            `json:"data,omitempty"` // nil leaves the client's
	Tags           map[string]string `json:"tags,omitempty"`
	SkipHistory    bool              `json:"skip_history,omitempty"`
	IdempotencyKey string            `json:"idempotency_key,omitempty"`
	Delta          bool              `json:"delta,omitempty"`
}
