package natsembed

import (
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// healEvery is how often a server that could not write looks for room.
	healEvery = time.Second
	// roomBytes is how much room a disk that was full must have.
	roomBytes = 4 << 20
)

// healer starts JetStream again when a disk that was full has room: a stream that could not be written to takes nothing any more until
// then. Publishers are refused meanwhile; connections and what is not stored go on.
type healer struct {
	// immutable after newHealer
	srv    *server.Server
	cfg    Config
	failed chan struct{} // capacity 1: a write has failed for want of room
	stop   chan struct{}
	ended  sync.WaitGroup
}

func newHealer(cfg Config) *healer {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &healer{cfg: cfg, failed: make(chan struct{}, 1), stop: make(chan struct{})}
}

// heard looks for a full disk, or a quota that is used up, in what the server says. It is the only place where the server tells.
func (h *healer) heard(message string) {
	if !strings.Contains(message, syscall.ENOSPC.Error()) && !strings.Contains(message, syscall.EDQUOT.Error()) {
		return
	}
	select {
	case h.failed <- struct{}{}:
	default:
	}
}

func (h *healer) start(srv *server.Server) {
	h.srv = srv
	h.ended.Go(func() {
		for await(h.stop, h.failed) {
			h.cfg.Log.Error("the disk of the embedded NATS server is full: publications that are to be stored are refused until it has room",
				"dir", h.cfg.Dir)
			for !h.room() || !h.restart() {
				if !await(h.stop, time.After(healEvery)) {
					return
				}
			}
		}
	})
}

func (h *healer) end() {
	select {
	case <-h.stop:
	default:
		close(h.stop)
	}
	h.ended.Wait()
}

// room says whether the disk takes a file of roomBytes.
func (h *healer) room() bool {
	f, err := os.CreateTemp(h.cfg.Dir, "room-")
	if err != nil {
		return false
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err = f.Write(make([]byte, roomBytes)); err != nil {
		return false
	}
	return f.Sync() == nil
}

// restart has JetStream read everything from the disk again.
func (h *healer) restart() bool {
	if err := h.srv.ShutdownJetStream(); err != nil {
		h.cfg.Log.Error("stop JetStream, to start it again", "err", err)
		return false
	}
	err := h.srv.EnableJetStream(&server.JetStreamConfig{
		StoreDir: h.cfg.Dir, MaxStore: maxOrAuto(h.cfg.MaxStore), MaxMemory: maxOrAuto(h.cfg.MaxMemory),
		SyncInterval: h.cfg.SyncInterval, SyncAlways: h.cfg.SyncAlways,
	})
	if err != nil {
		h.cfg.Log.Error("start JetStream again", "err", err)
		return false
	}
	select {
	case <-h.failed: // said before
	default:
	}
	h.cfg.Log.Warn("the disk of the embedded NATS server has room again, JetStream was started again", "dir", h.cfg.Dir)
	return true
}

// await returns false when the server stops.
func await[T any](stop <-chan struct{}, c <-chan T) bool {
	select {
	case <-stop:
		return false
	case <-c:
		return true
	}
}
