package presence_test

import (
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"github.com/carillon-rt/carillon/proto/presence"
)

var delta = presence.Delta{
	Node: "gw1", Incarnation: "0a", Shard: 63, Seq: 300, Snapshot: true,
	Ops: []presence.Op{
		{Kind: presence.Join, App: "1", Channel: "presence-a", User: "10", RawID: "10", Info: `{"n":"<é>"}`, Want: true},
		{Kind: presence.Leave, App: "1", Channel: "presence-a", User: "11"},
		{Kind: presence.Count, App: "1", Channel: "news", Count: 1 << 20},
		{Kind: presence.Online, App: "1", Channel: "#online-10"},
		{Kind: presence.Read, App: "1", Channel: "presence-a", Want: true},
	},
}

var reply = presence.Reply{
	Status: presence.OK,
	Results: []presence.Result{
		{Version: 1 << 61, Members: []presence.Member{{ID: "10", RawID: `"10"`, Info: `{"a":1}`}, {ID: "11", RawID: "11"}}},
		{Full: true, Limit: 100, Version: 7, Members: []presence.Member{}},
		{Deferred: true, Version: 8, Members: []presence.Member{}},
		{Incomplete: true, Version: 9, Members: []presence.Member{}},
	},
}

func TestGoldenDelta(t *testing.T) {
	const want = "0101" + "03677731" + "023061" + "3f" + "ac02" + "05" +
		"0101" + "0131" + "0a70726573656e63652d61" + "023130" + "023130" + "0c7b226e223a223cc3a93e227d" + "00" +
		"0200" + "0131" + "0a70726573656e63652d61" + "023131" + "00" + "00" + "00" +
		"0300" + "0131" + "046e657773" + "00" + "00" + "00" + "808040" +
		"0400" + "0131" + "0a236f6e6c696e652d3130" + "00" + "00" + "00" + "00" +
		"0601" + "0131" + "0a70726573656e63652d61" + "00" + "00" + "00" + "00"
	if got := hex.EncodeToString(presence.AppendDelta(nil, &delta)); got != want {
		t.Errorf("wire form changed: running clusters would not understand each other\n got %s\nwant %s", got, want)
	}
}

func TestGoldenReply(t *testing.T) {
	const want = "0100" + "04" +
		"00" + "00" + "808080808080808020" + "02" + "023130" + "0422313022" + "077b2261223a317d" + "023131" + "023131" + "00" +
		"01" + "64" + "07" + "00" +
		"02" + "00" + "08" + "00" +
		"04" + "00" + "09" + "00"
	if got := hex.EncodeToString(presence.AppendReply(nil, &reply)); got != want {
		t.Errorf("wire form changed: running clusters would not understand each other\n got %s\nwant %s", got, want)
	}
}

var beat = presence.Beat{Node: "p1", Shards: []presence.BeatShard{
	{Shard: 63, Term: 1 << 61, Chains: []presence.BeatChain{{Partition: 0, Last: 300}, {Partition: 15, Last: 7}}},
	{Shard: 1, Term: 5, Chains: []presence.BeatChain{}},
}}

func TestGoldenBeat(t *testing.T) {
	const want = "01" + "027031" + "02" + "3f" + "808080808080808020" + "02" + "00ac02" + "0f07" + "01" + "05" + "00"
	if got := hex.EncodeToString(presence.AppendBeat(nil, &beat)); got != want {
		t.Errorf("wire form changed: running clusters would not understand each other\n got %s\nwant %s", got, want)
	}
}

func TestRoundTrip(t *testing.T) {
	got, err := presence.ParseDelta(presence.AppendDelta(nil, &delta))
	if err != nil || !reflect.DeepEqual(got, delta) {
		t.Errorf("delta: %v\n got %+v\nwant %+v", err, got, delta)
	}
	back, err := presence.ParseReply(presence.AppendReply(nil, &reply))
	if err != nil || !reflect.DeepEqual(back, reply) {
		t.Errorf("reply: %v\n got %+v\nwant %+v", err, back, reply)
	}
	again, err := presence.ParseBeat(presence.AppendBeat(nil, &beat))
	if err != nil || !reflect.DeepEqual(again, beat) {
		t.Errorf("beat: %v\n got %+v\nwant %+v", err, again, beat)
	}
}

// TestCut: every prefix of a message is refused, none panics.
func TestCut(t *testing.T) {
	whole := presence.AppendDelta(nil, &delta)
	for n := range whole {
		if _, err := presence.ParseDelta(whole[:n]); err == nil {
			t.Errorf("delta cut to %d of %d bytes is accepted", n, len(whole))
		}
	}
	whole = presence.AppendReply(nil, &reply)
	for n := range whole {
		if _, err := presence.ParseReply(whole[:n]); err == nil {
			t.Errorf("reply cut to %d of %d bytes is accepted", n, len(whole))
		}
	}
	whole = presence.AppendBeat(nil, &beat)
	for n := range whole {
		if _, err := presence.ParseBeat(whole[:n]); err == nil {
			t.Errorf("beat cut to %d of %d bytes is accepted", n, len(whole))
		}
	}
}

func TestParts(t *testing.T) {
	for _, d := range []presence.Delta{
		{Node: "g", Incarnation: "1", Seq: 1, Snapshot: true, More: true, Ops: []presence.Op{}},
		{Node: "g", Incarnation: "1", Seq: 2, More: true, Ops: []presence.Op{}},
	} {
		if got, err := presence.ParseDelta(presence.AppendDelta(nil, &d)); err != nil || !reflect.DeepEqual(got, d) {
			t.Errorf("%v\n got %+v\nwant %+v", err, got, d)
		}
	}
}

func TestUnknownVersion(t *testing.T) {
	if _, err := presence.ParseDelta([]byte{2, 0}); !errors.Is(err, presence.ErrVersion) {
		t.Errorf("delta of version 2: %v", err)
	}
	if _, err := presence.ParseReply([]byte{2, 0}); !errors.Is(err, presence.ErrVersion) {
		t.Errorf("reply of version 2: %v", err)
	}
	if _, err := presence.ParseBeat([]byte{2, 0}); !errors.Is(err, presence.ErrVersion) {
		t.Errorf("beat of version 2: %v", err)
	}
}

// FuzzParse: what is accepted survives another round.
func FuzzParse(f *testing.F) {
	f.Add(presence.AppendDelta(nil, &delta))
	f.Add(presence.AppendReply(nil, &reply))
	f.Add(presence.AppendBeat(nil, &beat))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, buf []byte) {
		if d, err := presence.ParseDelta(buf); err == nil {
			again, err := presence.ParseDelta(presence.AppendDelta(nil, &d))
			if err != nil || !reflect.DeepEqual(again, d) {
				t.Errorf("delta changed: %v\n%+v\n%+v", err, d, again)
			}
		}
		if p, err := presence.ParseReply(buf); err == nil {
			again, err := presence.ParseReply(presence.AppendReply(nil, &p))
			if err != nil || !reflect.DeepEqual(again, p) {
				t.Errorf("reply changed: %v\n%+v\n%+v", err, p, again)
			}
		}
		if b, err := presence.ParseBeat(buf); err == nil {
			again, err := presence.ParseBeat(presence.AppendBeat(nil, &b))
			if err != nil || !reflect.DeepEqual(again, b) {
				t.Errorf("beat changed: %v\n%+v\n%+v", err, b, again)
			}
		}
	})
}
