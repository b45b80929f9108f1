package centrifugo

import "github.com/carillon-rt/carillon/proto/control"

// Detail fills in what backends are told of the connection beyond what is known
// of any.
func (s *Session) Detail(of *control.Connection) {
	of.Transport, of.Meta = s.opt.Transport, s.identity.behind().meta
}
