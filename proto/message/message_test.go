package message

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func full() Publication {
	return Publication{
		Kind: ClientEvent, App: "1001", Channel: "presence-room", Event: "client-typing", Data: []byte(`{"a":"<é>"}`),
		Exclude: "12.34", UserID: `"u7"`, ID: "id-1", Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		TimeMs: 1_700_000_000_123, Version: 300, IdempotencyKey: "key", Tags: []Tag{{"k", "v"}, {"empty", ""}},
	}
}

// golden are the bytes on the wire: a change here is a change of the format,
// which readers of other versions must survive.
var golden = []struct {
	name string
	pubs []Publication
}{
	{"empty_publication", []Publication{{}}},
	{"event", []Publication{{Kind: Event, App: "1", Channel: "news", Event: "e", Data: []byte("hi"), TimeMs: 1}}},
	{"all_fields", []Publication{full()}},
	{"three", []Publication{
		{Kind: Event, App: "1", Channel: "a", Data: []byte("1"), TimeMs: 127},
		{Kind: SubscriptionCount, App: "1", Channel: "b", Version: 128, TimeMs: 128},
		{Kind: MemberAdded, App: "1", Channel: "c", UserID: "7", Data: []byte("{}"), Version: 1, TimeMs: 16384},
	}},
	{"transient", []Publication{{Kind: Event, App: "1", Channel: "news", Data: []byte("hi"), TimeMs: 1, Transient: true}}},
	{"chained", []Publication{
		{Kind: MemberRemoved, App: "1", Channel: "c", UserID: "7", Version: 1, TimeMs: 1, Seq: 300},
		{Kind: SubscriptionCount, App: "1", Channel: "b", Version: 2, TimeMs: 1, Seq: 301, Prev: 300},
	}},
	{"of_a_client", []Publication{
		{Kind: Event, App: "1", Channel: "c", Data: []byte("x"), TimeMs: 1, Info: []byte(`{"user":"u","client":"1.2"}`)},
	}},
}

func encode(pubs []Publication) []byte {
	var b Batch
	for i := range pubs {
		b.Add(&pubs[i])
	}
	return b.Bytes()
}

func decode(t testing.TB, buf []byte) []Publication {
	t.Helper()
	var out []Publication
	r := NewReader(buf)
	var p Publication
	for r.Next(&p) {
		if r.Index() != len(out) {
			t.Fatalf("Index is %d at publication %d", r.Index(), len(out))
		}
		out = append(out, p)
	}
	if err := r.Err(); err != nil {
		t.Fatalf("decode %x: %v", buf, err)
	}
	return out
}

func TestGoldenBytes(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			raw, err := os.ReadFile(filepath.Join("testdata", g.name+".hex"))
			if err != nil {
				t.Fatal(err)
			}
			want, err := hex.DecodeString(strings.TrimSpace(string(raw)))
			if err != nil {
				t.Fatal(err)
			}
			if got := encode(g.pubs); !reflect.DeepEqual(got, want) {
				t.Errorf("encoded %x, want %x", got, want)
			}
			if got := decode(t, want); !samePubs(got, g.pubs) {
				t.Errorf("decoded %+v, want %+v", got, g.pubs)
			}
		})
	}
}

// samePubs takes nil and empty data for the same.
func samePubs(a, b []Publication) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if string(x.Data) != string(y.Data) || string(x.Info) != string(y.Info) {
			return false
		}
		x.Data, y.Data, x.Info, y.Info = nil, nil, nil, nil
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}

func TestRoundTrip(t *testing.T) {
	text := rapid.OneOf(rapid.Just(""), rapid.String(), rapid.StringN(100, 300, -1))
	pub := rapid.Custom(func(t *rapid.T) Publication {
		p := Publication{
			Kind: Kind(rapid.Byte().Draw(t, "kind")), App: text.Draw(t, "app"), Channel: text.Draw(t, "channel"),
			Event: text.Draw(t, "event"), Data: []byte(text.Draw(t, "data")), Exclude: text.Draw(t, "exclude"),
			UserID: text.Draw(t, "user"), ID: text.Draw(t, "id"), Trace: text.Draw(t, "trace"),
			TimeMs: rapid.Uint64().Draw(t, "time"), Version: rapid.Uint64().Draw(t, "version"),
			Seq: rapid.Uint64Min(1).Draw(t, "seq"), Prev: rapid.Uint64().Draw(t, "prev"), Info: []byte(text.Draw(t, "info")),
			IdempotencyKey: text.Draw(t, "key"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "tags") {
			p.Tags = append(p.Tags, Tag{text.Draw(t, "tag"), text.Draw(t, "value")})
		}
		return p
	})
	rapid.Check(t, func(rt *rapid.T) {
		pubs := rapid.SliceOfN(pub, 1, 5).Draw(rt, "publications")
		sum := 1
		for i := range pubs {
			sum += pubs[i].Size()
		}
		buf := encode(pubs)
		if len(buf) != sum {
			rt.Fatalf("Size sums up to %d, the batch has %d bytes", sum, len(buf))
		}
		if got := decode(t, buf); !samePubs(got, pubs) {
			rt.Fatalf("decoded %+v, want %+v", got, pubs)
		}
	})
}

func TestStamp(t *testing.T) {
	pubs := []Publication{{Kind: Event, App: "1", Channel: "a"}, {Kind: Event, App: "1", Channel: "b"}}
	plain := encode(pubs)
	for _, left := range []uint64{0, 1, 1 << 60} {
		got := decode(t, AppendStamped([]byte("scratch"), left, plain)[len("scratch"):])
		if len(got) != 2 || got[0].Channel != "a" || got[0].Left != left || got[1].Channel != "b" || got[1].Left != left {
			t.Errorf("decoded %+v, want both with %d", got, left)
		}
	}
	var reused Publication
	for _, batch := range [][]byte{AppendStamped(nil, 7, plain), plain} {
		r := NewReader(batch)
		r.Next(&reused)
	}
	if reused.Left != 0 {
		t.Error("a publication keeps the stamp of the batch before")
	}
	if r := NewReader([]byte{stamped}); r.Next(&reused) || r.Err() == nil {
		t.Error("a stamp that is cut off is read")
	}
}

func TestReaderIgnoresFieldsOfNewerWriters(t *testing.T) {
	p := Publication{Kind: Event, App: "1", Channel: "c", Data: []byte("x")}
	body := p.Append(nil)[1:] // without its length, which is one byte
	longer := append([]byte{version, byte(len(body) + 3)}, body...)
	longer = append(longer, 1, 2, 3)
	got := decode(t, p.Append(longer))
	if len(got) != 2 || got[0].Channel != "c" || got[1].Channel != "c" {
		t.Fatalf("decoded %+v", got)
	}
}

func TestMalformed(t *testing.T) {
	good := encode([]Publication{full()})
	for _, tt := range []struct {
		name string
		buf  []byte
		err  error
	}{
		{"empty", nil, ErrVersion},
		{"unknown version", []byte{9}, ErrVersion},
	} {
		r := NewReader(tt.buf)
		var p Publication
		if r.Next(&p) || !errors.Is(r.Err(), tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, r.Err(), tt.err)
		}
	}
	for n := 2; n < len(good); n++ {
		r := NewReader(good[:n])
		var p Publication
		if r.Next(&p) || r.Err() == nil {
			t.Fatalf("a batch cut to %d of %d bytes is read", n, len(good))
		}
	}
}

func TestBatchLimits(t *testing.T) {
	var b Batch
	big := Publication{Data: make([]byte, 2*BatchBytesMax)}
	small := Publication{Channel: "c"}
	if !b.Fits(&big, BatchBytesMax) {
		t.Error("an empty batch refuses a large publication")
	}
	b.Add(&big)
	if b.Fits(&small, BatchBytesMax) {
		t.Error("a batch above its size takes more")
	}
	b.Reset()
	for b.Fits(&small, BatchBytesMax) {
		b.Add(&small)
	}
	if b.Len() != BatchPublicationsMax {
		t.Errorf("a batch takes %d publications, want %d", b.Len(), BatchPublicationsMax)
	}
}

func TestPosition(t *testing.T) {
	p := At(12345, 678)
	if p.Seq() != 12345 || p.Index() != 678 {
		t.Errorf("%d has sequence %d and index %d", p, p.Seq(), p.Index())
	}
	if At(1, BatchPublicationsMax-1) >= At(2, 0) {
		t.Error("positions of one batch reach into the next")
	}
}

func FuzzReader(f *testing.F) {
	for _, g := range golden {
		f.Add(encode(g.pubs))
	}
	f.Add([]byte{1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, buf []byte) {
		r := NewReader(buf)
		var p Publication
		n := 0
		for r.Next(&p) {
			n++
			if len(p.Tags) > len(buf) || len(p.Data) > len(buf) {
				t.Fatal("more is read than there is")
			}
			_ = p.Append(nil)
		}
		if n > len(buf) {
			t.Fatal("more publications than bytes")
		}
	})
}

func benchBatch() []byte {
	var b Batch
	p := Publication{Kind: Event, App: "1001", Channel: "room-12345", Event: "message", Data: make([]byte, 128), TimeMs: 1_700_000_000_000}
	for range 50 {
		b.Add(&p)
	}
	return b.Bytes()
}

func readAll(buf []byte) int {
	r := NewReader(buf)
	var p Publication
	n := 0
	for r.Next(&p) {
		n += len(p.Data)
	}
	return n
}

func TestNoAllocations(t *testing.T) {
	buf := benchBatch()
	if n := testing.AllocsPerRun(100, func() { readAll(buf) }); n > 0 {
		t.Errorf("reading a batch allocates %v times", n)
	}
	var b Batch
	p := full()
	b.Add(&p)
	if n := testing.AllocsPerRun(100, func() { b.Reset(); b.Add(&p) }); n > 0 {
		t.Errorf("adding to a batch allocates %v times", n)
	}
}

// BenchmarkDecode reads batches of 50 publications; ns/op is per publication.
func TestBatchBytes(t *testing.T) {
	for _, c := range []struct {
		payload int64
		want    int
	}{{0, BatchBytesLeast}, {64 << 10, BatchBytesLeast}, {128 << 10, 124 << 10}, {1 << 20, BatchBytesMax}} {
		if got := BatchBytes(c.payload); got != c.want {
			t.Errorf("with messages of %d bytes: %d, want %d", c.payload, got, c.want)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	buf := benchBatch()
	b.ReportAllocs()
	for n := 0; n < b.N; n += 50 {
		readAll(buf)
	}
}

// BenchmarkEncode adds publications to batches that are reused.
func BenchmarkEncode(b *testing.B) {
	var batch Batch
	p := Publication{Kind: Event, App: "1001", Channel: "room-12345", Event: "message", Data: make([]byte, 128), TimeMs: 1_700_000_000_000}
	b.ReportAllocs()
	for b.Loop() {
		if !batch.Fits(&p, BatchBytesMax) {
			batch.Reset()
		}
		batch.Add(&p)
	}
}
