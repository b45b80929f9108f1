// Package tagfilter decides whether publications are for subscribers that want
// those with certain tags only. It is pure.
package tagfilter

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/proto/message"
)

// Node is a condition as clients write it: a comparison of a tag, or "and",
// "or" or "not" of others.
type Node struct {
	Op, Key, Cmp, Val string
	Vals              []string
	Nodes             []Node
}

// Limits of a condition.
const (
	nodesMax = 64
	bytesMax = 4 << 10
)

// Filter is a condition that has been checked.
type Filter struct {
	root Node
	name string
}

// New checks a condition.
func New(root *Node) (*Filter, error) {
	left := nodesMax
	if err := root.check(&left); err != nil {
		return nil, err
	}
	name := root.append(nil)
	if len(name) > bytesMax {
		return nil, fmt.Errorf("the condition takes %d bytes, at most %d are allowed", len(name), bytesMax)
	}
	return &Filter{root: *root, name: string(name)}, nil
}

// Name is the same for filters that say the same in the same words.
func (f *Filter) Name() string { return f.name }

// Match says whether a publication with these tags is wanted.
func (f *Filter) Match(tags []message.Tag) bool { return f.root.match(tags) }

// EventTag is the tag under which conditions find the event name of
// publications that have one.
const EventTag = "event"

// Tags are what conditions see of a publication, in strings of their own.
func Tags(pub *message.Publication) []message.Tag {
	tags := make([]message.Tag, 0, len(pub.Tags)+1)
	if pub.Event != "" {
		tags = append(tags, message.Tag{Key: EventTag, Value: strings.Clone(pub.Event)})
	}
	for _, t := range pub.Tags {
		tags = append(tags, message.Tag{Key: strings.Clone(t.Key), Value: strings.Clone(t.Value)})
	}
	return tags
}

// comparisons of a tag with Val or Vals; numbers are marked.
var comparisons = map[string]bool{
	"eq": false, "neq": false, "in": false, "nin": false, "ex": false, "nex": false, "sw": false, "ew": false, "ct": false,
	"lt": true, "lte": true, "gt": true, "gte": true,
}

func (n *Node) check(left *int) error {
	if *left--; *left < 0 {
		return fmt.Errorf("the condition has more than %d parts", nodesMax)
	}
	switch n.Op {
	case "":
		number, known := comparisons[n.Cmp]
		switch {
		case !known:
			return fmt.Errorf("cmp is %q, want eq, neq, in, nin, ex, nex, sw, ew, ct, lt, lte, gt or gte", n.Cmp)
		case n.Key == "":
			return errors.New("a comparison has no key")
		case len(n.Nodes) > 0:
			return errors.New("a comparison has nodes: they need an op")
		case number && !isNumber(n.Val):
			return fmt.Errorf("val is %q, want a number to compare with", n.Val)
		}
		return nil
	case "and", "or":
		if len(n.Nodes) == 0 {
			return fmt.Errorf("op %q has no nodes", n.Op)
		}
	case "not":
		if len(n.Nodes) != 1 {
			return fmt.Errorf("op not has %d nodes, want one", len(n.Nodes))
		}
	default:
		return fmt.Errorf("op is %q, want and, or, not, or none for a comparison", n.Op)
	}
	for i := range n.Nodes {
		if err := n.Nodes[i].check(left); err != nil {
			return err
		}
	}
	return nil
}

// append writes the condition in a form that no other has.
func (n *Node) append(dst []byte) []byte {
	for _, s := range [...]string{n.Op, n.Key, n.Cmp, n.Val} {
		dst = strconv.AppendQuote(dst, s)
	}
	dst = append(dst, '[')
	for _, v := range n.Vals {
		dst = strconv.AppendQuote(dst, v)
	}
	dst = append(dst, '(')
	for i := range n.Nodes {
		dst = n.Nodes[i].append(dst)
	}
	return append(dst, ")]"...)
}

func (n *Node) match(tags []message.Tag) bool {
	switch n.Op {
	case "and", "or":
		for i := range n.Nodes {
			if n.Nodes[i].match(tags) == (n.Op == "or") {
				return n.Op == "or"
			}
		}
		return n.Op == "and"
	case "not":
		return !n.Nodes[0].match(tags)
	}
	value, there := valueOf(tags, n.Key)
	switch n.Cmp {
	case "eq":
		return there && value == n.Val
	case "neq":
		return !there || value != n.Val
	case "in":
		return there && slices.Contains(n.Vals, value)
	case "nin":
		return !there || !slices.Contains(n.Vals, value)
	case "ex":
		return there
	case "nex":
		return !there
	case "sw":
		return there && strings.HasPrefix(value, n.Val)
	case "ew":
		return there && strings.HasSuffix(value, n.Val)
	case "ct":
		return there && strings.Contains(value, n.Val)
	}
	return there && compares(n.Cmp, value, n.Val)
}

func valueOf(tags []message.Tag, key string) (string, bool) {
	for i := range tags {
		if tags[i].Key == key {
			return tags[i].Value, true
		}
	}
	return "", false
}

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// compares compares numbers: whole ones exactly. What is no number is neither
// more nor less than anything.
func compares(cmp, a, b string) bool {
	x, err1 := strconv.ParseInt(a, 10, 64)
	y, err2 := strconv.ParseInt(b, 10, 64)
	if err1 == nil && err2 == nil {
		return ordered(cmp, x, y)
	}
	v, err1 := strconv.ParseFloat(a, 64)
	w, err2 := strconv.ParseFloat(b, 64)
	return err1 == nil && err2 == nil && ordered(cmp, v, w)
}

func ordered[N int64 | float64](cmp string, x, y N) bool {
	switch cmp {
	case "lt":
		return x < y
	case "lte":
		return x <= y
	case "gt":
		return x > y
	}
	return x >= y
}
