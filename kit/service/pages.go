package service

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/config"
)

// ConfigPage shows the effective configuration with its secrets redacted. cfg must not change any more.
func ConfigPage(cfg any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var page bytes.Buffer
		if err := config.Print(&page, cfg); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write(page.Bytes())
	})
}

// membersPage lists the nodes that this one sees.
func membersPage(ms cluster.Membership) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		local := ms.Local()
		for _, m := range ms.Members() {
			mark := " "
			if m.Node == local.Node && m.Incarnation == local.Incarnation {
				mark = "*"
			}
			away := ""
			if m.Away {
				away = "\thas lost NATS"
			}
			fmt.Fprintf(w, "%s %s\t%s\t%s\t%s\t%s%s\n", mark, m.Node, m.Incarnation, m.Addr, strings.Join(m.Roles, ","), m.Version, away)
		}
	})
}
