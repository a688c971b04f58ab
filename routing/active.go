package routing

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of an active value.
const (
	maxActiveWeight = 1_000_000
	maxActiveParts  = 100
)

// Active is the value of an active key: the subsets that serve and their
// shares, in the order written. It is never empty.
type Active []ActivePart

// ActivePart is one subset's share. A weight of 0 serves nothing.
type ActivePart struct {
	Subset string
	Weight int
}

// ParseActive reads "green", or "blue=90,green=10"; white space around the
// words does not matter. One subset alone has all the traffic whatever its
// weight, and gets the weight 100. An error says what is accepted.
func ParseActive(text string) (Active, error) {
	const accepted = "accepted is a subset such as green, or shares such as blue=90,green=10"
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, errors.New("the value is empty: " + accepted)
	}
	words := strings.SplitN(text, ",", maxActiveParts+1)
	if len(words) > maxActiveParts {
		return nil, fmt.Errorf("the value names more than %d subsets: %s", maxActiveParts, accepted)
	}
	a := make(Active, 0, len(words))
	sum := 0
	for _, word := range words {
		name, weight, weighted := strings.Cut(word, "=")
		part := ActivePart{Subset: strings.TrimSpace(name), Weight: 100}
		if !validSubset(part.Subset) {
			return nil, fmt.Errorf("%s is not a subset's name (letters, digits and _ . -): %s", quoted(part.Subset), accepted)
		}
		if weighted {
			var err error
			if part.Weight, err = parseWeight(strings.TrimSpace(weight)); err != nil {
				return nil, fmt.Errorf("subset %s: %w: %s", part.Subset, err, accepted)
			}
		} else if len(words) > 1 {
			return nil, fmt.Errorf("subset %s has no weight beside the others: %s", part.Subset, accepted)
		}
		for _, other := range a {
			if other.Subset == part.Subset {
				return nil, fmt.Errorf("subset %s is named twice: %s", part.Subset, accepted)
			}
		}
		sum += part.Weight
		a = append(a, part)
	}
	if sum == 0 {
		return nil, errors.New("every weight is 0, so nothing would serve: " + accepted)
	}
	if len(a) == 1 {
		a[0].Weight = 100
	}
	return a, nil
}

// String gives the form that ParseActive reads, without spaces; one subset
// alone is its name.
func (a Active) String() string {
	if len(a) == 1 {
		return a[0].Subset
	}
	var b strings.Builder
	for i, part := range a {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(part.Subset)
		b.WriteByte('=')
		b.WriteString(strconv.Itoa(part.Weight))
	}
	return b.String()
}

func parseWeight(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > maxActiveWeight {
		return 0, fmt.Errorf("%s is not a weight from 0 to %d", quoted(s), maxActiveWeight)
	}
	return int(n), nil
}

func validSubset(s string) bool {
	if s == "" || len(s) > maxNameBytes {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}
