package hook

import (
	"strings"
)

// headersOf lists what goes along with a call by its lower-case name: headers
// of the client's request that the hook gets, those that the client wrote into
// its connect command where there is no real one, and over all the hook's own.
func headersOf(call *Call) map[string]string {
	headers := map[string]string{}
	forward(headers, call.Hook.EmulatedHeaders, call.Client.Emulated)
	forward(headers, call.Hook.ForwardHeaders, call.Client.Headers)
	for name, value := range call.Hook.Headers {
		headers[strings.ToLower(name)] = value
	}
	return headers
}

func forward(to map[string]string, allowed []string, from map[string]string) {
	if len(from) == 0 {
		return
	}
	for _, name := range allowed {
		name = strings.ToLower(name)
		switch value, ok := from[name]; {
		case !ok:
		case printable(value):
			to[name] = value
		default:
			delete(to, name) // nor is one sent that a client wrote in its place
		}
	}
}

// printable says whether every transport can carry the value: a client's
// header that none can is left out.
func printable(value string) bool {
	for i := 0; i < len(value); i++ {
		if value[i] < 0x20 || value[i] > 0x7e {
			return false
		}
	}
	return true
}
