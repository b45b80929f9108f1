package publisher

import (
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"github.com/carillon-rt/carillon/proto/message"
)

func TestReplyGoldenBytes(t *testing.T) {
	for _, tt := range []struct {
		name     string
		epoch    string
		receipts []Receipt
		want     string
	}{
		{"none", "", nil, "01" + "00" + "00"},
		{"live only", "", []Receipt{{}, {}}, "01" + "00" + "02" + "00" + "00"},
		{
			"stored, repeated, refused", "ab",
			[]Receipt{
				{Position: message.At(3, 1), Epoch: "ab"},
				{Position: message.At(1, 0), Epoch: "ab", Duplicate: true},
				{Err: &Error{TooLarge, "big"}},
			},
			"01" + "026162" + "03" + "018118" + "038008" + "0407" + "03626967",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := AppendReply(nil, tt.epoch, tt.receipts)
			if g := hex.EncodeToString(got); g != tt.want {
				t.Errorf("encoded %s, want %s", g, tt.want)
			}
			back, err := ParseReply(nil, got)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, tt.receipts) {
				t.Errorf("parsed %+v, want %+v", back, tt.receipts)
			}
		})
	}
}

func TestErrorsTravel(t *testing.T) {
	in := []Receipt{
		{Err: ErrUnavailable}, {Err: ErrBusy}, {Err: &Error{Unavailable, "other words"}}, {Err: errors.New("no code")},
	}
	out, err := ParseReply(nil, AppendReply(nil, "", in))
	if err != nil {
		t.Fatal(err)
	}
	if out[0].Err != ErrUnavailable || out[1].Err != ErrBusy {
		t.Errorf("the retryable errors are not themselves: %v", out[:2])
	}
	for i, want := range []error{ErrUnavailable, ErrBusy, ErrUnavailable, ErrUnavailable} {
		if !errors.Is(out[i].Err, want) {
			t.Errorf("error %d is %v, want %v", i, out[i].Err, want)
		}
	}
	if errors.Is(out[0].Err, ErrBusy) {
		t.Error("unavailable counts as busy")
	}
}

func TestMalformedReplies(t *testing.T) {
	good := AppendReply(nil, "epoch", []Receipt{{Position: 5, Epoch: "epoch"}, {Err: &Error{BadEvent, "bad"}}})
	for n := range len(good) {
		if _, err := ParseReply(nil, good[:n]); !errors.Is(err, ErrReply) {
			t.Errorf("a reply cut to %d of %d bytes: %v", n, len(good), err)
		}
	}
	if _, err := ParseReply(nil, []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}); !errors.Is(err, ErrReply) {
		t.Errorf("a huge count: %v", err)
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add(AppendReply(nil, "e", []Receipt{{Position: 9, Epoch: "e", Duplicate: true}, {Err: ErrBusy}}))
	f.Fuzz(func(t *testing.T, buf []byte) {
		receipts, err := ParseReply(nil, buf)
		if err == nil && len(receipts) > len(buf) {
			t.Fatal("more receipts than bytes")
		}
	})
}
