// Package stream sets streams up within the room that the NATS server has. It
// knows nothing of what they carry.
package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// bytesMin is what a stream is cut down to at most.
const bytesMin = 4 << 20

// JetStream's codes for "no room": in the account, on the server, and with
// "no suitable peers" in a cluster.
const (
	accountFull = 10002
	noPeers     = 10005
	serverFull  = 10047
)

// SetUp creates or updates a stream. A size limit counts as used from the
// start: where the server has less room than that, a stream that is there
// keeps its limit, and a new one gets half of what would fit, so that others
// find room too. The stream's configuration says what it has become. A stream
// that is as it should be is left alone: several services set the same ones up
// when they start, while others make consumers on them.
func SetUp(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig, log *slog.Logger) (jetstream.Stream, error) {
	if s, err := js.Stream(ctx, cfg.Name); err == nil && covers(s.CachedInfo().Config, cfg) {
		return s, nil
	}
	s, err := js.CreateOrUpdateStream(ctx, cfg)
	if isFull(err) {
		want := cfg.MaxBytes
		if s, err = fit(ctx, js, cfg); err == nil {
			log.Warn("the NATS server has little room: a stream is smaller than configured",
				"stream", cfg.Name, "configured_bytes", want, "bytes", s.CachedInfo().Config.MaxBytes)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("set up stream %s: %w", cfg.Name, err)
	}
	return s, nil
}

// covers says whether have is what want asks for; what want leaves at its zero
// value is up to the server.
func covers(have, want jetstream.StreamConfig) bool {
	h, w := reflect.ValueOf(have), reflect.ValueOf(want)
	for i := range w.NumField() {
		if !w.Field(i).IsZero() && !reflect.DeepEqual(h.Field(i).Interface(), w.Field(i).Interface()) {
			return false
		}
	}
	return true
}

// fit makes do with less than cfg.MaxBytes.
func fit(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	old, err := js.Stream(ctx, cfg.Name)
	if err == nil {
		cfg.MaxBytes = old.CachedInfo().Config.MaxBytes
		return js.UpdateStream(ctx, cfg)
	}
	for {
		if cfg.MaxBytes /= 2; cfg.MaxBytes < bytesMin {
			return nil, fmt.Errorf("the server has no room for %d bytes", bytesMin)
		}
		s, err := js.CreateStream(ctx, cfg)
		if err == nil && cfg.MaxBytes/2 >= bytesMin {
			cfg.MaxBytes /= 2
			return js.UpdateStream(ctx, cfg)
		}
		if !isFull(err) {
			return s, err
		}
	}
}

// isFull says whether a smaller stream might be accepted.
func isFull(err error) bool {
	var e *jetstream.APIError
	if !errors.As(err, &e) {
		return false
	}
	switch e.ErrorCode {
	case accountFull, serverFull:
		return true
	case noPeers:
		return strings.Contains(e.Description, "storage")
	}
	return false
}
