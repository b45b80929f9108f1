// Package control is what is told to every gateway at once.
package control

// Command reaches every gateway on subject.GatewayControl, as JSON.
type Command struct {
	App string `json:"app"`
	// TerminateUser closes all connections of this signed-in user (4009).
	TerminateUser string `json:"terminate_user,omitempty"`
	// ReconnectUser closes them with the hint to come back (4200).
	ReconnectUser string `json:"reconnect_user,omitempty"`
	// Operation changes connections of dialects with credentials of their own.
	Operation *Operation `json:"operation,omitempty"`
}
