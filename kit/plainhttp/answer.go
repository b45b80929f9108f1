package plainhttp

import (
	"bytes"
	"net/http"
	"strconv"
	"time"
)

// answerKeep is the most that is kept of an answer's memory.
const answerKeep = 4 << 10

// answer is the http.ResponseWriter of plain requests. It holds everything until the handler returns.
type answer struct {
	header http.Header
	status int
	body   []byte

	out    bytes.Buffer
	second int64  // of date
	date   string // as in the header
}

func (a *answer) reset() {
	clear(a.header)
	a.status = 0
	if a.body = a.body[:0]; cap(a.body) > answerKeep {
		a.body = nil
	}
	if a.out.Reset(); a.out.Cap() > answerKeep {
		a.out = bytes.Buffer{}
	}
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter. There are no interim answers.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= http.StatusOK {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, p...)
	return len(p), nil
}

// WriteString implements io.StringWriter.
func (a *answer) WriteString(s string) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, s...)
	return len(s), nil
}

// ours are the fields that encode writes.
var ours = map[string]bool{"Date": true, "Content-Length": true, "Transfer-Encoding": true}

// encode gives the bytes of the answer, valid until the next one, as net/http orders them; but the body always has a length.
func (a *answer) encode(closing bool) []byte {
	a.WriteHeader(http.StatusOK)
	a.out.WriteString("HTTP/1.1 ")
	a.out.WriteString(strconv.Itoa(a.status))
	a.out.WriteByte(' ')
	a.out.WriteString(http.StatusText(a.status))
	a.out.WriteString("\r\n")
	bodyless := a.status == http.StatusNoContent || a.status == http.StatusNotModified
	if bodyless {
		a.body = nil
	}
	_, typed := a.header["Content-Type"]
	_ = a.header.WriteSubset(&a.out, ours) // a buffer takes everything
	a.out.WriteString("Date: ")
	a.out.WriteString(a.now())
	if !bodyless {
		a.out.WriteString("\r\nContent-Length: ")
		a.out.WriteString(strconv.Itoa(len(a.body)))
	}
	if !typed && len(a.body) > 0 {
		a.out.WriteString("\r\nContent-Type: ")
		a.out.WriteString(http.DetectContentType(a.body))
	}
	if closing && a.header["Connection"] == nil {
		a.out.WriteString("\r\nConnection: close")
	}
	a.out.WriteString("\r\n\r\n")
	a.out.Write(a.body)
	return a.out.Bytes()
}

// now is the time as HTTP writes it, made once a second.
func (a *answer) now() string {
	if now := time.Now(); a.date == "" || now.Unix() != a.second {
		a.second, a.date = now.Unix(), now.UTC().Format(http.TimeFormat)
	}
	return a.date
}
