package control

// Question asks every gateway about the connections of an app that it has. It
// travels as JSON on subject.GatewayQuestion; each gateway answers to the
// reply subject, with one Answer or several.
type Question struct {
	App string `json:"app"`
	// Connections asks for those that are selected.
	Connections *Select `json:"connections,omitempty"`
	// Limit is how many connections a gateway lists at most; 0 is none.
	Limit int `json:"limit,omitempty"`
	// Numbers asks how many connections, users, channels and subscriptions
	// there are.
	Numbers bool `json:"numbers,omitempty"`
}

// Answer is what one gateway says. A list that is too long for one message
// comes in several answers.
type Answer struct {
	Node  string `json:"node"`
	Error string `json:"error,omitempty"`
	// More: another answer of this gateway follows.
	More        bool         `json:"more,omitempty"`
	Connections []Connection `json:"connections,omitempty"`
	// Cut: there are more connections than Limit allows.
	Cut     bool     `json:"cut,omitempty"`
	Numbers *Numbers `json:"numbers,omitempty"`
}

// Connection describes one.
type Connection struct {
	Client string `json:"client"` // socket id
	User   string `json:"user,omitempty"`
	// Name is that of the client's SDK, Version that of the client's
	// application, as far as the client says.
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
	// Transport and Protocol are as in authz.Client.
	Transport string `json:"transport,omitempty"`
	Protocol  string `json:"protocol,omitempty"`
	// Meta is what the application said of the connection: JSON or "".
	Meta     string   `json:"meta,omitempty"`
	Channels []string `json:"channels,omitempty"`
}

// Numbers of one gateway and app.
type Numbers struct {
	Clients int `json:"clients"`
	// Users are the distinct users who have connections here.
	Users         int `json:"users"`
	Channels      int `json:"channels"`
	Subscriptions int `json:"subscriptions"`
}
