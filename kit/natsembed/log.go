package natsembed

import (
	"fmt"
	"log/slog"
)

// logger passes the server's messages on. Its notices are of interest to who runs a NATS server, not to who runs us: debug.
type logger struct {
	log   *slog.Logger
	fatal chan<- error // what Start returns when the server gives up; one is enough
	heard func(message string)
}

func (l *logger) write(level func(*slog.Logger, string, ...any), format string, args []any) {
	if l.log != nil {
		level(l.log, "embedded NATS", "message", fmt.Sprintf(format, args...))
	}
}

func (l *logger) Noticef(format string, args ...any) { l.write((*slog.Logger).Debug, format, args) }
func (l *logger) Warnf(format string, args ...any)   { l.write((*slog.Logger).Warn, format, args) }
func (l *logger) Errorf(format string, args ...any) {
	l.write((*slog.Logger).Error, format, args)
	l.heard(fmt.Sprintf(format, args...))
}
func (l *logger) Debugf(format string, args ...any) { l.write((*slog.Logger).Debug, format, args) }
func (l *logger) Tracef(format string, args ...any) { l.write((*slog.Logger).Debug, format, args) }

// Fatalf does not end the process: the server would like to, but it is a guest here.
func (l *logger) Fatalf(format string, args ...any) {
	l.write((*slog.Logger).Error, format, args)
	select {
	case l.fatal <- fmt.Errorf(format, args...):
	default:
	}
}
