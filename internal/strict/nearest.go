package strict

import "strings"

// nearest returns the known name that was most likely meant by name, or "" if none is
// near. Case and the characters that join words do not count, and the
// last word of a dotted name may stand for the whole: "vni" is near "vxlan.vni".
// The first one of equally near names wins.
func nearest(name string, known []string) string {
	best, bestDistance := "", len(name)
	for _, k := range known {
		for _, candidate := range []string{k, k[strings.LastIndexByte(k, '.')+1:]} {
			candidate = normalize(candidate)
			d := editDistance(normalize(name), candidate)
			if d < bestDistance && d <= max(1, len(candidate)/3) {
				best, bestDistance = k, d
			}
		}
	}
	return best
}

// DidYouMean returns the remedy for an unknown name: "did you mean X?" with the
// nearest one, or "remove it" if none is near.
func DidYouMean(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	return "remove it"
}

// joiners are what separates words in keys, flags and variables.
var joiners = strings.NewReplacer("-", "", "_", "")

func normalize(name string) string { return joiners.Replace(strings.ToLower(name)) }

// editDistance is the optimal string alignment distance in bytes: insertions,
// deletions, substitutions and swaps of neighbours that turn a into b.
func editDistance(a, b string) int {
	// Names far longer than any key aren't misspelt keys, and would cost time.
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			substitute := last[j-1]
			if a[i-1] != b[j-1] {
				substitute++
			}
			row[j] = min(last[j]+1, row[j-1]+1, substitute)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
