// Package spelling finds the word that a misspelt word was probably meant to be. Start with
// [Nearest].
package spelling

import "strings"

// Nearest returns the candidate that word was probably meant to be, or "" if none is similar.
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", max(1, len(word)/3)+1
	lower := strings.ToLower(word)
	for _, c := range candidates {
		if c == word {
			continue
		}
		d := editDistance(lower, strings.ToLower(c))
		if len(lower) >= 3 && (strings.HasPrefix(c, lower) || strings.HasPrefix(lower, c) && len(c) >= 3) {
			d = min(d, 1)
		}
		// If every letter would have to change, the words aren't similar.
		if d < bestDistance && d < len(word) {
			best, bestDistance = c, d
		}
	}
	return best
}

// Misspelt returns whether two names differ by a typing error. Names that differ only in a number,
// such as lane1 and lane2, don't count as a typing error.
func Misspelt(a, b string) bool {
	noDigits := strings.NewReplacer("0", "", "1", "", "2", "", "3", "", "4", "", "5", "", "6", "", "7", "", "8", "", "9", "")
	if a == b || noDigits.Replace(a) == noDigits.Replace(b) || min(len(a), len(b)) < 4 {
		return false
	}
	return editDistance(a, b) <= min(2, len(a)/4)
}

// editDistance returns the optimal string alignment distance: the number of bytes that are
// inserted, deleted, replaced or swapped.
func editDistance(a, b string) int {
	// A word that is far longer than any key isn't a misspelt key.
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}
