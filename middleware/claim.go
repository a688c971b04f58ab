package middleware

import (
	"encoding/json"
	"strconv"
	"strings"
)

// claimValues returns the values of a claim: one for a string, a number or a
// truth value, and those of its entries for a list. A name with dots leads
// into nested objects ("realm_access.roles"), unless there is a claim of
// exactly that name ("https://example.com/roles"). scope and scp are lists
// also where they are written as one string with spaces (RFC 8693 section
// 4.2); of no other claim is a part taken for the whole.
func claimValues(claims map[string]any, name string) []string {
	switch v := claimAt(claims, name).(type) {
	case nil:
		return nil
	case string:
		if name == "scope" || name == "scp" {
			return strings.Fields(v)
		}
		return []string{v}
	case []string:
		return v
	case []any:
		out := make([]string, 0, len(v))
		for _, e := range v {
			if s, ok := claimText(e); ok {
				out = append(out, s)
			}
		}
		return out
	default:
		if s, ok := claimText(v); ok {
			return []string{s}
		}
		return nil
	}
}

// claimText writes a plain value as its token did.
func claimText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	case json.Number:
		return v.String(), true
	}
	return "", false
}
