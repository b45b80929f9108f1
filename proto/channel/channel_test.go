package channel

import (
	"fmt"
	"strings"
	"testing"
)

func TestKindOf(t *testing.T) {
	for name, want := range map[string]Kind{
		"news":                           {},
		"private-a":                      {Private: true},
		"private-":                       {Private: true},
		"private-cache-a":                {Private: true, Cache: true},
		"private-encrypted-a":            {Private: true, Encrypted: true},
		"private-encrypted-cache-a":      {Private: true, Encrypted: true, Cache: true},
		"private-encrypted":              {Private: true},
		"private-cache-encrypted-a":      {Private: true, Cache: true},
		"presence-a":                     {Private: true, Presence: true},
		"presence-cache-a":               {Private: true, Presence: true, Cache: true},
		"presence-encrypted-a":           {Private: true, Presence: true},
		"cache-a":                        {Cache: true},
		"cache-private-a":                {Cache: true},
		"#server-to-user-7":              {User: true},
		"#server-to-user-7#8":            {User: true},
		"#server-to-user":                {Users: true},
		"#online-7":                      {Users: true},
		"#7":                             {Users: true},
		"news#7,8":                       {Users: true},
		"ns:#7":                          {Users: true},
		"news#":                          {Users: true},
		"$x":                             {Private: true},
		"$ns:x":                          {Private: true},
		"$x#7":                           {Private: true, Users: true},
		"private-x#7":                    {Private: true, Users: true},
		"presence-x#7":                   {Private: true, Presence: true, Users: true},
		"$presence-x":                    {Private: true},
		"$":                              {Private: true},
		"ns:$x":                          {},
		"":                               {},
		"private":                        {},
		"Private-a":                      {},
		"foo-private-a":                  {}, // prefixes are anchored
		"my-cache-a":                     {},
		"x-private-encrypted-cache-room": {},
	} {
		if got := KindOf(name); got != want {
			t.Errorf("%q is %+v, want %+v", name, got, want)
		}
	}
}

func TestUserOf(t *testing.T) {
	for name, want := range map[string]string{"#server-to-user-7": "7", "#server-to-user-a-b": "a-b", "#server-to-user-": "", "x#server-to-user-7": "", "7": ""} {
		if got := UserOf(name); got != want {
			t.Errorf("%q belongs to %q, want %q", name, got, want)
		}
	}
}

func TestAllowsUser(t *testing.T) {
	for _, c := range []struct {
		name, user string
		want       bool
	}{
		{"news", "", true},
		{"$news", "", true}, // private is another question
		{"news#7,8", "7", true},
		{"news#7,8", "8", true},
		{"news#7,8", "78", false},
		{"news#7,8", "7,8", false},
		{"news#7,8", "", false},
		{"news#", "", false},
		{"news#7,,8", "", false},
		{"a#7#8", "7", false}, // the last list counts
		{"a#7#8", "8", true},
		{"#7", "7", true},
		{"ns:#7", "7", true},
		{"$ns:x#7", "7", true},
		{"$ns:x#7", "8", false},
		{"#server-to-user-7", "7", true},
		{"#server-to-user-7", "server-to-user-7", false},
		{"#server-to-user-7", "", false},
		{"#server-to-user-a,b", "b", false},
		{"#server-to-user-a#7", "7", false},
		{"#server-to-user-", "", false},
		{"#online-7", "7", false},
		{"#online-7", "online-7", false},
	} {
		if got := AllowsUser(c.name, c.user); got != c.want {
			t.Errorf("%q lets %q in: %v, want %v", c.name, c.user, got, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, wrong := range map[string]string{
		"news": "", "Räume 1/2": "", strings.Repeat("x", 255): "",
		"": "empty", strings.Repeat("x", 256): "256 bytes", "a\xff": "UTF-8", "a\nb": "control", "a\x7f": "control", "\x00": "control",
	} {
		checkError(t, name, Validate(name), wrong)
	}
}

func TestValidatePusher(t *testing.T) {
	for _, c := range []struct {
		name  string
		max   int
		wrong string
	}{
		{"azAZ09_-=@,.;", 0, ""},
		{strings.Repeat("x", 200), 0, ""},
		{strings.Repeat("x", 201), 0, "201 characters"},
		{strings.Repeat("x", 165), 164, "at most 164"},
		{"", 0, "empty"},
		{"a b", 0, `" "`},
		{"a/b", 0, `"/"`},
		{"ä", 0, "allowed are"},
		{"a\n", 0, "allowed are"},
		{"a:b", 0, `":"`},
		{"#private", 0, `"#"`},
		{OnlinePrefix + "7", 0, `"#"`},
		{UserPrefix + "any id: ä", 0, ""},
		{UserPrefix + "a\n", 0, "control"},
		{UserPrefix + strings.Repeat("x", 200), 0, "at most 200"},
	} {
		checkError(t, c.name, ValidatePusher(c.name, c.max), c.wrong)
	}
}

func checkError(t *testing.T, name string, err error, wrong string) {
	t.Helper()
	switch {
	case wrong == "" && err != nil:
		t.Errorf("%q is refused: %v", name, err)
	case wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)):
		t.Errorf("%q: %v, want an error with %q", name, err, wrong)
	}
}

// Where a channel is stored and watched must never change: the numbers are
// those of the first release.
func TestPlacesOfChannelsStay(t *testing.T) {
	for _, c := range []struct {
		key              Key
		partition, shard int
	}{
		{Key{"1001", "news"}, 15, 15},
		{Key{"1001", "presence-room"}, 11, 16},
		{Key{"1002", "news"}, 4, 21},
	} {
		if p, s := c.key.Partition(16), c.key.Shard(32); p != c.partition || s != c.shard {
			t.Errorf("%s is on partition %d and shard %d, want %d and %d", c.key, p, s, c.partition, c.shard)
		}
	}
}

func TestChannelsSpread(t *testing.T) {
	const n, partitions, shards = 100_000, 16, 32
	var byPartition [partitions]int
	var byBoth [partitions][shards]int
	for i := range n {
		k := Key{App: "1001", Name: fmt.Sprintf("user-%d", i)}
		p, s := k.Partition(partitions), k.Shard(shards)
		byPartition[p]++
		byBoth[p][s]++
	}
	for p := range partitions {
		if got := byPartition[p]; got < n/partitions*9/10 || got > n/partitions*11/10 {
			t.Errorf("partition %d has %d of %d channels", p, got, n)
		}
		for s := range shards {
			if got, fair := byBoth[p][s], n/partitions/shards; got < fair/2 || got > fair*2 {
				t.Errorf("partition %d and shard %d share %d channels, about %d would be fair", p, s, got, fair)
			}
		}
	}
}
