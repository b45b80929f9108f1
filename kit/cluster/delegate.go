package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

// announcer gives memberlist this node's description; the other hooks of its interface are not used.
type announcer struct{ meta *atomic.Pointer[[]byte] }

func (a announcer) NodeMeta(int) []byte             { return *a.meta.Load() }
func (announcer) NotifyMsg([]byte)                  {}
func (announcer) GetBroadcasts(_, _ int) [][]byte   { return nil }
func (announcer) LocalState(bool) []byte            { return nil }
func (announcer) MergeRemoteState(_ []byte, _ bool) {}

// listener keeps the view in step with memberlist. It is called with memberlist's lock held and must not call it back.
type listener struct {
	view *view
	log  *slog.Logger
}

func (l listener) NotifyJoin(n *memberlist.Node)   { l.put(n, "node joined") }
func (l listener) NotifyUpdate(n *memberlist.Node) { l.put(n, "node changed") }

func (l listener) NotifyLeave(n *memberlist.Node) {
	l.view.remove(n.Name)
	l.log.Info("node left", "name", n.Name, "addr", n.Address())
}

func (l listener) put(n *memberlist.Node, what string) {
	var m Member
	if err := json.Unmarshal(n.Meta, &m); err != nil || m.Node == "" {
		l.log.Warn("a cluster member does not describe itself", "name", n.Name, "addr", n.Address(), "err", err)
		return
	}
	if m.Addr == "" {
		m.Addr = n.Address()
	}
	l.view.put(n.Name, m)
	l.log.Info(what, "node", m.Node, "incarnation", m.Incarnation, "addr", n.Address(), "roles", m.Roles)
}

// logWriter turns memberlist's lines into records: its warnings concern single packets and peers, so nothing of it is above warn.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(line []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.Contains(line, []byte("[WARN]")) || bytes.Contains(line, []byte("[ERR]")) {
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, "gossip", "line", string(bytes.TrimSpace(line)))
	return len(line), nil
}
