package discovery

import "strings"

// Nearest is the word that s was meant to be: the one that takes the fewest
// letters to insert, delete or change, and at most that many; "" for none.
// Words are in lower case.
func Nearest(s string, words []string, most int) string {
	if len(s) > 64 {
		return ""
	}
	best, least := "", most+1
	for _, w := range words {
		if d := distance(strings.ToLower(s), w); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := corner
			if a[i] != b[j] {
				change++
			}
			corner = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
