package gateway

import (
	"testing"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
)

// A router that begins is told of the time that the last one's publications had.
func TestClock(t *testing.T) {
	w := newWorld(t, testConfig(), Options{})
	w.makeJournal()
	c := subscribed(w, "news")
	w.untilCount("news", 1)
	var b message.Batch
	b.Add(&message.Publication{Kind: message.Event, App: "1", Channel: "news", Event: "e", Data: []byte(`"x"`)})
	stamped := message.AppendStamped(nil, 1_234_567, b.Bytes())
	if err := w.nc.Publish(subject.Live(channel.Key{App: "1", Name: "news"}.Partition(partitions)), stamped); err != nil {
		t.Fatal(err)
	}
	c.expect(`"channel":"news"`)
	m, err := w.nc.Request(subject.Clock, nil, patience)
	if err != nil || string(m.Data) != "1234567" {
		t.Errorf("answered %v, %v", m, err)
	}
}
