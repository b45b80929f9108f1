// Package transcript plays scripts of testdata with the sessions of a dialect and compares what they say. It knows what
// lines are; what the verbs of a script do is the dialect's test's.
package transcript

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
)

var rewrite = flag.Bool("rewrite", false, "write what the sessions really say into testdata; read the diff before you commit it")

// Compare plays all scripts of testdata, of which there are at least so many. In a script
//
//	verb ...  is a step
//	# ...     is a remark
//	< {...}   is what the client gets
//	! ...     is what the session asks of its host
//
// and the lines with < and ! are what is tested.
func Compare(t *testing.T, least int, play func(t *testing.T, script string) string) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < least {
		t.Fatalf("found %d scripts (%v), expected at least %d", len(files), err, least)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s differs:\n%s\n(-rewrite accepts it)", file, firstDifference(string(want), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\n%s\nwant %s\ngot  %s", i+1, strings.Join(w[max(0, i-5):i], "\n"), w[i], g[i])
		}
	}
	return fmt.Sprintf("want %d lines, got %d", len(w), len(g))
}

// Tape records what a session says while a script is played: the part of its host that is the same in every dialect.
type Tape struct {
	T *testing.T
	// Closed is whether the session has closed the connection.
	Closed bool

	said []string // in this step
}

var repeated = regexp.MustCompile(`\$\(([^*]*)\*(\d+)\)`)

// Play takes the steps of a script and returns it with what the session says; $(x*200) in a step stands for 200 times x.
func (p *Tape) Play(script string, step func(verb, rest string)) string {
	var b strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "<") || strings.HasPrefix(line, "!") {
			continue
		}
		b.WriteString(line + "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		p.said = nil
		verb, rest, _ := strings.Cut(line, " ")
		step(verb, repeated.ReplaceAllStringFunc(rest, func(s string) string {
			m := repeated.FindStringSubmatch(s)
			n, _ := strconv.Atoi(m[2])
			return strings.Repeat(m[1], n)
		}))
		collapse(&b, p.said)
	}
	return b.String()
}

// collapse writes lines, and repeated ones as a count.
func collapse(b *strings.Builder, lines []string) {
	for i := 0; i < len(lines); {
		n := 1
		for i+n < len(lines) && lines[i+n] == lines[i] {
			n++
		}
		b.WriteString(lines[i] + "\n")
		if n > 1 {
			fmt.Fprintf(b, "! the same %d times more\n", n-1)
		}
		i += n
	}
}

// Wish records what the session asks of its host.
func (p *Tape) Wish(format string, args ...any) {
	p.said = append(p.said, "! "+fmt.Sprintf(format, args...))
}

// Send records what the client gets: JSON on one line, while the connection is open.
func (p *Tape) Send(payload []byte) {
	if p.Closed {
		p.T.Errorf("sent after close: %s", payload)
	}
	if !json.Valid(payload) || bytes.ContainsAny(payload, "\n") {
		p.T.Errorf("sent something that is not JSON: %s", payload)
	}
	p.said = append(p.said, "< "+string(payload))
}

// Connected implements session.Witness: what the client is sent says it.
func (p *Tape) Connected() {}

// Unsubscribed implements session.Witness.
func (p *Tape) Unsubscribed(channel string, code uint32, reason string) {
	p.Wish("unsubscribed %s %d %q", channel, code, reason)
}

// Detach implements the hosts of sessions.
func (p *Tape) Detach(channel string) { p.Wish("detach %s", channel) }

// Decode reads JSON of a script.
func (p *Tape) Decode(text string, into any) {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		p.T.Fatalf("%s: %v", text, err)
	}
}

// Number reads a number of a script.
func (p *Tape) Number(word string) uint32 {
	n, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		p.T.Fatal(err)
	}
	return uint32(n)
}

// Reason reads the name of a reason.
func (p *Tape) Reason(name string) dialect.Reason {
	for _, r := range dialect.Reasons() {
		if r.String() == name {
			return r
		}
	}
	p.T.Fatalf("no reason is called %q", name)
	return dialect.None
}

// Line writes v as JSON for a script.
func Line(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(b.String())
}
