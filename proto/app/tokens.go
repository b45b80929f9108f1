package app

import (
	"fmt"
	"regexp"
)

// claimPlace is a group's place in a jwks_url.
var claimPlace = regexp.MustCompile(`\{\{ *([A-Za-z0-9_]*) *\}\}`)

// ClaimPattern compiles the pattern of a claim so that it matches the whole.
func ClaimPattern(pattern string) (*regexp.Regexp, error) {
	return regexp.Compile(`^(?:` + pattern + `)$`)
}

// KeySetURL gives the address of the key set for a token of these claims; the
// named groups of the patterns fill its places.
func (t *Token) KeySetURL(groups map[string]string) string {
	return claimPlace.ReplaceAllStringFunc(t.JWKSURL, func(place string) string {
		return groups[claimPlace.FindStringSubmatch(place)[1]]
	})
}

// validateTemplate sees that each place of the jwks_url has a group to fill
// it: else anybody could choose the keys, or nobody would have any.
func (t *Token) validateTemplate() error {
	known := map[string]bool{}
	for _, pattern := range []string{t.IssuerRegex, t.AudienceRegex} {
		re, err := ClaimPattern(pattern)
		if err != nil {
			return err
		}
		for _, name := range re.SubexpNames() {
			known[name] = name != ""
		}
	}
	for _, place := range claimPlace.FindAllStringSubmatch(t.JWKSURL, -1) {
		if !known[place[1]] {
			return fmt.Errorf("jwks_url has {{%s}}, but neither issuer_regex nor audience_regex has a group (?P<%s>...)", place[1], place[1])
		}
	}
	return nil
}
