// Package authz is the contract between gateways and the authorization
// service: requests, and one Decision whatever it was based on. Messages
// travel as JSON; JSON that belongs to the application travels inside as
// strings, so that its bytes stay what they are.
package authz

// Subscribe asks whether a connection may subscribe to a channel.
// Subject: subject.AuthSubscribe.
type Subscribe struct {
	App      string `json:"app"`
	Key      string `json:"key"` // the key that the connection came with
	SocketID string `json:"socket_id"`
	Channel  string `json:"channel"`
	Auth     string `json:"auth,omitempty"` // "key:signature"
	// ChannelData is the exact bytes that the client sent.
	ChannelData string `json:"channel_data,omitempty"`
	// User is the signed-in user of the connection, if any.
	User *User `json:"user,omitempty"`
	// Transport of a connection without Client: see Client.
	Transport string `json:"transport,omitempty"`

	// Of dialects whose connections have credentials of their own: instead of
	// Auth and ChannelData there are a token, or neither, and data for the
	// subscribe hook.
	Client *Client `json:"client,omitempty"`
	Token  string  `json:"token,omitempty"`
	Data   []byte  `json:"data,omitempty"`
}

// SignIn asks whether a connection may act as a user.
// Subject: subject.AuthSignIn.
type SignIn struct {
	App      string `json:"app"`
	Key      string `json:"key"`
	SocketID string `json:"socket_id"`
	Auth     string `json:"auth"`
	UserData string `json:"user_data"` // the exact bytes that the client sent
}

// User is an identity that the application vouched for.
type User struct {
	// ID is the id in string form: the number 10 and the string "10" are the
	// same user.
	ID string `json:"id"`
	// RawID is the id as the application wrote it in JSON: 10 or "10".
	RawID string `json:"raw_id"`
	// Info is the user_info as the application wrote it in JSON, or "".
	Info string `json:"info,omitempty"`
	// Watchlist are the ids of the users whose online state the user follows.
	Watchlist []string `json:"watchlist,omitempty"`
}

// Decision is the answer to every authorization request.
type Decision struct {
	Allow bool `json:"allow"`
	// User is the presence member of a subscription, the user of a sign-in.
	User *User `json:"user,omitempty"`
	// Reason of a refusal, one of the codes below.
	Reason Reason `json:"reason,omitempty"`
	// Message for the developer of the client: what is wrong and what would
	// be right. It never holds a secret.
	Message string `json:"message,omitempty"`
	// Temporary: "can't tell now", not "no".
	Temporary bool `json:"temporary,omitempty"`

	// Verdict is the application's own words for a refusal; nil leaves them to
	// the dialect.
	Verdict *Verdict `json:"verdict,omitempty"`
	// Credentials answer Connect and Refresh.
	Credentials *Credentials `json:"credentials,omitempty"`
	// Grant answers Subscribe and SubRefresh of a connection with credentials.
	// Its ExpireAt in the past says that the subscription has expired.
	Grant *Grant `json:"grant,omitempty"`
	// Edited answers Publish.
	Edited *Edited `json:"edited,omitempty"`
	// Reply answers RPC.
	Reply []byte `json:"reply,omitempty"`
}

// Reason is why a request was refused.
type Reason string

// Reasons.
const (
	BadSignature Reason = "bad_signature" // the signature does not match, or the key is unknown
	BadData      Reason = "bad_data"      // channel_data or user_data is malformed
	TooLarge     Reason = "too_large"     // user object or user id over the limit
	Forbidden    Reason = "forbidden"     // signed properly, yet not allowed
	Unavailable  Reason = "unavailable"   // can't tell now
	BadToken     Reason = "bad_token"     // not a token, or badly signed
	ForeignToken Reason = "foreign_token" // of another user, channel or connection
	TokenExpired Reason = "token_expired" // fetch a new one
	NoChannel    Reason = "no_channel"    // no policy knows a channel of that namespace
	NoMethod     Reason = "no_method"     // nobody answers calls of that method
	NotAvailable Reason = "not_available" // the app has not turned on what was asked for
)

// Refuse makes a refusal.
func Refuse(reason Reason, message string) Decision {
	return Decision{Reason: reason, Message: message, Temporary: reason == Unavailable}
}
