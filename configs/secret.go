package configs

import (
	"encoding/json"
	"log/slog"
)

// Secret is text that must not be printed: every way of writing it out gives
// a placeholder.
type Secret string

const redacted = "(secret)"

// Reveal returns the text.
func (s Secret) Reveal() string { return string(s) }

// String is a placeholder, or "" where there is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String, for encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is String, for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// String gives every setting as one line of JSON, secrets left out.
func (c Config) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		return "configuration that cannot be written: " + err.Error()
	}
	return string(b)
}

// GoString is String, for %#v.
func (c Config) GoString() string { return c.String() }

// LogValue is String, for slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON writes every setting under its key, durations as text, secrets
// as a placeholder.
func (c Config) MarshalJSON() ([]byte, error) {
	out := map[string]any{}
	for _, s := range settings() {
		m := out
		for _, part := range s.parents() {
			if m[part] == nil {
				m[part] = map[string]any{}
			}
			m = m[part].(map[string]any)
		}
		m[s.name()] = s.shown(&c)
	}
	return json.Marshal(out)
}
