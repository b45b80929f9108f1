package pusherapi

import (
	"net/http"
	"strings"
)

// route is one of the calls of the API.
type route uint8

const (
	routeNone route = iota
	routeEvents
	routeBatch
	routeChannels
	routeChannel
	routeUsers
	routeChannelEvents // deprecated: one channel, the body is the data
	routeTerminate
	routeUp
	routeReady
)

// target is what a path asks for.
type target struct {
	route route
	// app is the id in the path; "" for the alias of terminate_connections, which has none.
	app string
	// name is the channel or the user in the path, unescaped.
	name string
}

// method is the only one that the route takes.
func (r route) method() string {
	switch r {
	case routeEvents, routeBatch, routeChannelEvents, routeTerminate:
		return http.MethodPost
	default:
		return http.MethodGet
	}
}

// parsePath finds the route of a raw path, its configured prefix stripped. Segments are split before they are unescaped, so
// that an escaped slash stays inside its segment.
func parsePath(path string) target {
	segments, n := [5]string{}, 0
	rest, ok := strings.CutPrefix(path, "/")
	for more := ok; more; n++ {
		if n == len(segments) {
			return target{}
		}
		segments[n], rest, more = strings.Cut(rest, "/")
	}
	switch {
	case n == 1 && segments[0] == "up":
		return target{route: routeUp}
	case n == 1 && segments[0] == "ready":
		return target{route: routeReady}
	case n == 3 && segments[0] == "users" && segments[2] == "terminate_connections":
		return target{route: routeTerminate, name: unescape(segments[1])}
	case n < 3 || segments[0] != "apps" || segments[1] == "":
		return target{}
	}
	app := unescape(segments[1])
	if n == 3 {
		return target{route: collection(segments[2]), app: app}
	}
	tail := ""
	if n == 5 {
		if tail = segments[4]; tail == "" {
			return target{}
		}
	}
	return target{route: member(segments[2], tail), app: app, name: unescape(segments[3])}
}

// collection is the route of /apps/ID/kind.
func collection(kind string) route {
	switch kind {
	case "events":
		return routeEvents
	case "batch_events":
		return routeBatch
	case "channels":
		return routeChannels
	}
	return routeNone
}

// member is the route of /apps/ID/kind/NAME and /apps/ID/kind/NAME/tail.
func member(kind, tail string) route {
	switch kind + "/" + tail {
	case "channels/":
		return routeChannel
	case "channels/users":
		return routeUsers
	case "channels/events":
		return routeChannelEvents
	case "users/terminate_connections":
		return routeTerminate
	}
	return routeNone
}

// rawPath is the path as the client sent it: signatures are made over these bytes.
func rawPath(r *http.Request) string {
	uri, _, _ := strings.Cut(r.RequestURI, "?")
	if strings.HasPrefix(uri, "/") {
		return uri
	}
	return r.URL.EscapedPath() // the absolute form, as sent to proxies
}
