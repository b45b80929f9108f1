package hook

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"

	"github.com/nats-io/nats.go"
)

// natsTransport makes requests; messages are those of HTTP, and so are headers.
type natsTransport struct {
	nc      *nats.Conn
	subject string
}

func (t *natsTransport) encode(req Request) ([]byte, error) { return encodeJSON(req) }
func (t *natsTransport) decode(body []byte, out any) error  { return decodeJSON(body, out) }
func (t *natsTransport) close() error                       { return nil }

// errorHeader is set by services of the NATS clients' micro package.
const errorHeader = "Nats-Service-Error-Code"

func (t *natsTransport) send(ctx context.Context, kind Kind, body []byte, headers map[string]string) ([]byte, error) {
	if t.nc == nil {
		return nil, &Failure{unreachable, errors.New("there is no NATS here")}
	}
	msg := nats.NewMsg(t.subject)
	msg.Data = body
	for name, value := range headers {
		msg.Header.Set(textproto.CanonicalMIMEHeaderKey(name), value)
	}
	msg.Header.Set("Carillon-Hook", string(kind))
	reply, err := t.nc.RequestMsgWithContext(ctx, msg)
	switch {
	case err != nil:
		return nil, &Failure{unreachable, err}
	case reply.Header.Get(errorHeader) != "":
		return nil, &Failure{status, fmt.Errorf("it answered with the error code %.20q", reply.Header.Get(errorHeader))}
	case len(reply.Data) > answerBytesMax:
		return nil, &Failure{malformed, fmt.Errorf("its answer has more than %d bytes", answerBytesMax)}
	}
	return reply.Data, nil
}
