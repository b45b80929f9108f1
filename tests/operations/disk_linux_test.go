package operations

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// The disk of the embedded NATS server runs full: what is to be stored is
// refused as retryable, all else goes on, and so does everything as soon as
// there is room, without a restart. Nothing that was acknowledged is lost.
func TestDiskFull(t *testing.T) {
	const enough = 5000 // publications are more than the disk holds
	c := env.Start(t, env.SmallDisk())
	k := &keeper{}
	if _, err := k.come(t, c.Gateways[0], "long-disk"); err != nil {
		t.Fatal(err)
	}
	ctx, acked := t.Context(), 0
	calls := api(t, c)
	publish := func() int {
		data := fmt.Sprintf("p/%06d", acked)
		answer, err := calls.Trigger(ctx, client.Event{
			Name: "n", Data: data + strings.Repeat(".", 9000), Channels: []string{"long-disk"}, IdempotencyKey: data,
		})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status == http.StatusOK {
			acked++
			if err := k.listen(acked); err != nil {
				t.Fatalf("after %d of %d: %v", len(k.seen), acked, err)
			}
		}
		return answer.Status
	}
	status := http.StatusOK
	for status == http.StatusOK && acked < enough {
		status = publish()
	}
	if status != http.StatusServiceUnavailable {
		t.Fatalf("after %d publications of 9 kB the answer is %d, want 503: the disk is full", acked, status)
	}
	before := acked
	if answer, err := calls.Trigger(ctx, client.Event{Name: "n", Data: "x", Channels: []string{"live"}}); err != nil || answer.Status != http.StatusOK {
		t.Errorf("a channel that is not stored: %d, %v, want 200", answer.Status, err)
	}
	c.Gateways[0].FreeDisk()
	eventually(t, "there is room again", func() bool { return publish() == http.StatusOK })
	publish()
	checkComplete(t, k.seen, acked)
	t.Logf("%d stored before the disk was full, %d in all", before, acked)
}
