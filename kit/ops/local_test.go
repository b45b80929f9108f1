package ops

import "testing"

func TestLocal(t *testing.T) {
	for peer, want := range map[string]bool{
		"127.0.0.1:5000": true, "127.8.9.1:1": true, "[::1]:5000": true, "[::ffff:127.0.0.1]:9": true,
		"10.0.0.7:5000": false, "[2001:db8::1]:5000": false, "[::ffff:10.0.0.7]:9": false, "": false, "@": false, "localhost:1": false,
	} {
		if got := local(peer); got != want {
			t.Errorf("local(%q) is %v", peer, got)
		}
	}
}
