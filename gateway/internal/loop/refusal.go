package loop

import (
	"net/http"
	"strconv"

	"github.com/carillon-rt/carillon/gateway/internal/ws"
)

// refusal is the answer to a request that is refused. 426, 429 and 503 carry the
// header that says what would be right.
func refusal(status int, text string) []byte {
	body := text
	if body != "" {
		body += "\n"
	}
	b := make([]byte, 0, 256+len(body))
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, statusText(status)...)
	b = append(b, "\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	switch status {
	case 426:
		b = append(b, "\r\nUpgrade: websocket\r\nSec-WebSocket-Version: "+ws.Version...)
	case 429, 503:
		b = append(b, "\r\nRetry-After: 5"...)
	}
	b = append(b, "\r\n\r\n"...)
	b = append(b, body...)
	return b
}

// statusText is the reason phrase of an HTTP status.
func statusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return text
	}
	return "Status"
}
