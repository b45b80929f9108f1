package api_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkTriggerHTTP is a trigger over a kept-alive socket, through net/http, publisher, NATS and a router that only acknowledges. cpu-us/op is
// of the whole process: the clients, the NATS server and the stand-in router are in it too.
func BenchmarkTriggerHTTP(b *testing.B) {
	f := start(b).router()
	wire := events(`{"name":"message","channels":["private-room-17"],"data":"{\"text\":\"` + strings.Repeat("x", 200) + `\"}"}`).wire()
	wire = strings.Replace(wire, "Connection: close\r\n", "", 1)
	b.SetParallelism(32)
	before := cpu()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("tcp", f.addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for pb.Next() {
			if _, err := io.WriteString(conn, wire); err != nil {
				b.Error(err)
				return
			}
			resp, err := http.ReadResponse(answers, nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				b.Errorf("answer %v: %v", resp, err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
		}
	})
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// cpu is what the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
