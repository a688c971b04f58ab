package passwords

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Groups is which groups each user is in.
type Groups map[string][]string

// ParseGroups reads a groups file as Apache's AuthGroupFile has it: a line
// "GROUP: USER USER…" for each group. A group may have several lines.
func ParseGroups(content []byte) (Groups, error) {
	groups := Groups{}
	n := 0
	for line := range bytes.Lines(content) {
		n++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		group, users, ok := strings.Cut(text, ":")
		group = strings.TrimSpace(group)
		if !ok || group == "" || !plain(group, maxUser) || strings.ContainsAny(group, ", ") {
			return nil, fmt.Errorf("line %d is not GROUP: USER USER…", n)
		}
		for _, user := range strings.Fields(users) {
			if !slices.Contains(groups[user], group) {
				groups[user] = append(groups[user], group)
			}
		}
	}
	return groups, nil
}
