package channel

// Glob matches name against pattern, in which * stands for any run of bytes,
// the empty one included, and ? for one byte if single is set. After a
// mismatch only the last star takes one byte more, so that it takes
// len(pattern) * len(name) steps at most.
func Glob(pattern, name string, single bool) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == name[n] || single && pattern[p] == '?'):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
