package routing

import (
	"fmt"
	"time"
)

// Duration is a length of time as documents write it: a Go duration string
// such as "250ms", "30s" or "1h30m". A bare number is refused, because its
// unit would be a guess; "0" and "0s" are zero.
type Duration time.Duration

// ParseDuration reads s. Negative durations are refused.
func ParseDuration(s string) (Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 250ms, 30s or 5m", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("%q is negative", s)
	}
	return Duration(d), nil
}

// MarshalText writes the duration in the form that ParseDuration reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads the form that MarshalText writes.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	if err != nil {
		return err
	}
	*d = v
	return nil
}
