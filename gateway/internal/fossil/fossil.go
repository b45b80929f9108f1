// Package fossil writes and applies differences in the delta format of the
// Fossil version control system (www.fossil-scm.org, "The Fossil Delta
// Format"):
//
//	SIZE \n { COUNT @ OFFSET , | COUNT : BYTES } SUM ;
//
// SIZE is that of the result. COUNT@OFFSET, copies from the source, COUNT:BYTES
// are new, SUM is the sum of the result's big-endian words of 32 bits. Numbers
// are written in base 64.
package fossil

import (
	"encoding/binary"
	"errors"
)

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"

// block is the length of the pieces of the source that are looked for.
const block = 16

// blocksMax bounds the pieces of a source that are looked for: of a longer one
// they lie further apart.
const blocksMax = 4096

// Append appends the difference from source to target. Copies begin and end
// between characters where both are UTF-8, so that what is new is UTF-8, too.
func Append(dst, source, target []byte) []byte {
	dst = appendNumber(dst, uint32(len(target)))
	dst = append(dst, '\n')
	head, tail := ends(source, target)
	dst = appendCopy(dst, head)
	dst = appendMiddle(dst, source, target[:len(target)-tail.count], head.count)
	dst = appendCopy(dst, tail)
	dst = appendNumber(dst, sum(target))
	return append(dst, ';')
}

// ends are what both begin and end with, if that is worth a copy: most changes
// are in one place.
func ends(source, target []byte) (head, tail match) {
	short := min(len(source), len(target))
	for head.count < short && source[head.count] == target[head.count] {
		head.count++
	}
	if head.trim(target); head.count < block {
		head = match{}
	}
	short -= head.count
	for tail.count < short && source[len(source)-1-tail.count] == target[len(target)-1-tail.count] {
		tail.count++
	}
	tail.source, tail.target = len(source)-tail.count, len(target)-tail.count
	if tail.trim(target); tail.count < block {
		tail = match{}
	}
	return head, tail
}

// appendMiddle appends what target is from fresh on.
func appendMiddle(dst, source, target []byte, fresh int) []byte {
	if len(source) >= block && len(target)-fresh >= block {
		ix := indexOf(source)
		for at := fresh; at+block <= len(target); {
			m := ix.find(source, target, at, fresh)
			if m.count < block {
				at++
				continue
			}
			dst = appendNew(dst, target[fresh:m.target])
			dst = appendCopy(dst, m)
			at = m.target + m.count
			fresh = at
		}
	}
	return appendNew(dst, target[fresh:])
}

func appendCopy(dst []byte, m match) []byte {
	if m.count == 0 {
		return dst
	}
	dst = appendNumber(dst, uint32(m.count))
	dst = append(dst, '@')
	dst = appendNumber(dst, uint32(m.source))
	return append(dst, ',')
}

func appendNew(dst, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	dst = appendNumber(dst, uint32(len(b)))
	dst = append(dst, ':')
	return append(dst, b...)
}

func appendNumber(dst []byte, n uint32) []byte {
	var buf [6]byte
	at := len(buf)
	for {
		at--
		buf[at] = digits[n&63]
		if n >>= 6; n == 0 {
			return append(dst, buf[at:]...)
		}
	}
}

// alikeMax is how many of the blocks that are alike are tried.
const alikeMax = 8

// index is where blocks of a source begin.
type index struct {
	step  int
	last  map[[block]byte]int32 // number of the last of those that are alike
	alike []int32               // by number, that of the one before, -1 if there is none
}

func indexOf(source []byte) index {
	ix := index{step: block}
	for len(source)/ix.step > blocksMax {
		ix.step *= 2
	}
	n := len(source) / ix.step
	ix.last, ix.alike = make(map[[block]byte]int32, n), make([]int32, 0, n)
	for at := 0; at+block <= len(source); at += ix.step {
		key := [block]byte(source[at:])
		before, there := ix.last[key]
		if !there {
			before = -1
		}
		ix.last[key] = int32(len(ix.alike))
		ix.alike = append(ix.alike, before)
	}
	return ix
}

// match is a run of bytes that both have.
type match struct{ source, target, count int }

// find looks for the block of target that begins at at, and gives the longest
// run that it stands in, which begins at floor or after it.
func (ix *index) find(source, target []byte, at, floor int) (best match) {
	number, there := ix.last[[block]byte(target[at:])]
	if !there {
		return best
	}
	for range alikeMax {
		if m := runAt(source, target, int(number)*ix.step, at, floor); m.count > best.count {
			best = m
		}
		if number = ix.alike[number]; number < 0 {
			break
		}
	}
	return best
}

// runAt is the run around a block that both have.
func runAt(source, target []byte, start, at, floor int) match {
	m := match{source: start, target: at, count: block}
	for m.source > 0 && m.target > floor && source[m.source-1] == target[m.target-1] {
		m.source--
		m.target--
		m.count++
	}
	for m.source+m.count < len(source) && m.target+m.count < len(target) && source[m.source+m.count] == target[m.target+m.count] {
		m.count++
	}
	m.trim(target)
	return m
}

// trim cuts the run so that it splits no character.
func (m *match) trim(target []byte) {
	for m.count > 0 && continues(target[m.target]) {
		m.source++
		m.target++
		m.count--
	}
	for end := m.target + m.count; m.count > 0 && end < len(target) && continues(target[end]); end-- {
		m.count--
	}
}

// continues says whether b stands within a character of UTF-8.
func continues(b byte) bool { return b&0xc0 == 0x80 }

// sum is the checksum of the format.
func sum(b []byte) uint32 {
	var n uint32
	for ; len(b) >= 4; b = b[4:] {
		n += binary.BigEndian.Uint32(b)
	}
	var rest [4]byte
	copy(rest[:], b)
	return n + binary.BigEndian.Uint32(rest[:])
}

// Errors of Apply.
var (
	ErrFormat = errors.New("fossil: not a delta")
	ErrSource = errors.New("fossil: not a delta of this source")
)

// Apply gives what source becomes by a delta. A result of more than bytesMax
// is an error.
func Apply(source, delta []byte, bytesMax int) ([]byte, error) {
	size, delta, ok := number(delta)
	if !ok || len(delta) == 0 || delta[0] != '\n' || int(size) > bytesMax {
		return nil, ErrFormat
	}
	delta = delta[1:]
	out := make([]byte, 0, size)
	for {
		var n uint32
		if n, delta, ok = number(delta); !ok || len(delta) == 0 {
			return nil, ErrFormat
		}
		kind := delta[0]
		delta = delta[1:]
		switch {
		case kind == ';':
			if len(delta) > 0 || len(out) != int(size) {
				return nil, ErrFormat
			}
			if sum(out) != n {
				return nil, ErrSource
			}
			return out, nil
		case int64(n) > int64(size)-int64(len(out)):
			return nil, ErrFormat
		case kind == ':':
			if int(n) > len(delta) {
				return nil, ErrFormat
			}
			out, delta = append(out, delta[:n]...), delta[n:]
		case kind == '@':
			var from uint32
			if from, delta, ok = number(delta); !ok || len(delta) == 0 || delta[0] != ',' {
				return nil, ErrFormat
			}
			delta = delta[1:]
			if int64(from)+int64(n) > int64(len(source)) {
				return nil, ErrSource
			}
			out = append(out, source[from:from+n]...)
		default:
			return nil, ErrFormat
		}
	}
}

// number reads a number, false if there is none or it has more than 32 bits.
func number(b []byte) (n uint32, rest []byte, ok bool) {
	for ; len(b) > 0; b = b[1:] {
		v := valueOf(b[0])
		if v < 0 {
			break
		}
		if n >= 1<<26 {
			return 0, b, false
		}
		n, ok = n<<6|uint32(v), true
	}
	return n, b, ok
}

func valueOf(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'Z':
		return int(c-'A') + 10
	case c == '_':
		return 36
	case c >= 'a' && c <= 'z':
		return int(c-'a') + 37
	case c == '~':
		return 63
	}
	return -1
}
