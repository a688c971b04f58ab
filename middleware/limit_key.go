package middleware

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/routing"
)

const (
	// maxKeyParts bounds the list in a key field.
	maxKeyParts = 8
	// maxKeyValue is how much of a key is kept as it came; a longer value
	// stands there as its digest.
	maxKeyValue = 64
	// defaultIPv6Prefix is what one customer of a provider has at least
	// (RFC 6177): with less, a limit by address would be none.
	defaultIPv6Prefix = 64
)

// limitKey says whose request one is, for plugins that count by that. It is
// immutable.
type limitKey struct {
	parts      []keyPart
	ipv6Prefix int
}

// keyPart is one of ip, consumer, route, claim:NAME and header:NAME.
type keyPart struct{ kind, name string }

// compileKey reads a key field: one part or a list of them; nil is consumer.
func compileKey(at *Place, value any, ipv6Prefix int) (limitKey, routing.Faults) {
	k := limitKey{ipv6Prefix: ipv6Prefix}
	var faults routing.Faults
	if ipv6Prefix == 0 {
		k.ipv6Prefix = defaultIPv6Prefix
	} else if ipv6Prefix < 1 || ipv6Prefix > 128 {
		faults = append(faults, routing.Fault{Field: at.At("ipv6_prefix"),
			Message: fmt.Sprintf("is %d; accepted is 1 to 128", ipv6Prefix)})
	}
	list, isList := value.([]any)
	switch {
	case value == nil:
		list = []any{"consumer"}
	case !isList:
		list = []any{value}
	case len(list) == 0 || len(list) > maxKeyParts:
		return k, append(faults, routing.Fault{Field: at.At("key"),
			Message: fmt.Sprintf("has %d entries; accepted is 1 to %d", len(list), maxKeyParts)})
	}
	seen := map[keyPart]bool{}
	for i, v := range list {
		field := at.At("key")
		if isList {
			field += "[" + strconv.Itoa(i) + "]"
		}
		part, message := parseKeyPart(v)
		if message == "" && seen[part] {
			message = "stands there twice"
		}
		if message != "" {
			faults = append(faults, routing.Fault{Field: field, Message: message})
			continue
		}
		seen[part] = true
		k.parts = append(k.parts, part)
	}
	return k, faults
}

// parseKeyPart returns what is wrong with v, or "".
func parseKeyPart(v any) (keyPart, string) {
	text, ok := v.(string)
	if !ok {
		return keyPart{}, "must be a string or a list of strings"
	}
	kind, name, named := strings.Cut(text, ":")
	switch {
	case !named && (kind == "ip" || kind == "consumer" || kind == "route"):
		return keyPart{kind: kind}, ""
	case kind == "claim" && name != "":
		return keyPart{kind, name}, ""
	case kind == "header" && validHeaderName(name):
		return keyPart{kind, canonical(name)}, ""
	}
	return keyPart{}, fmt.Sprintf("is %q; accepted are ip, consumer, claim:NAME, header:NAME, route", head(text, 64))
}

// String names the key in a form that no other key has.
func (k limitKey) String() string { return fmt.Sprintf("%q/%d", k.parts, k.ipv6Prefix) }

// appendTo appends whose request r is. Two requests get the same bytes only
// if every part is the same: each stands there with its kind and its length.
// In place of a part that the request does not have stands the client's
// address.
func (k *limitKey) appendTo(b []byte, r *http.Request, x *routing.Exchange) []byte {
	for i := range k.parts {
		p := &k.parts[i]
		before := len(b)
		switch p.kind {
		case "consumer":
			b = appendConsumer(b, x.Identity)
		case "route":
			b = appendPart(b, 'r', x.Match.Route.Key)
		case "claim":
			b = appendClaim(b, x.Identity, p.name)
		case "header":
			for _, v := range r.Header[p.name] {
				if v != "" {
					b = appendPart(b, 'h', v)
				}
			}
			if len(b) > before {
				b = append(b, '.') // the end of the header's lines
			}
		}
		if len(b) == before {
			b = k.appendAddress(b, x.Client)
		}
	}
	return b
}

// appendAddress appends a client: an IPv4 address, or the network that an
// IPv6 address lies in.
func (k *limitKey) appendAddress(b []byte, a netip.Addr) []byte {
	switch {
	case a.Is4():
		four := a.As4()
		return append(append(b, '4'), four[:]...)
	case a.Is6():
		p, _ := a.Prefix(k.ipv6Prefix) // the length was checked
		six := p.Addr().As16()
		return append(append(b, '6'), six[:]...)
	}
	return append(b, '?') // not known: all of those together
}

// appendConsumer appends a consumer's name, or the name that a plugin
// vouches for where no consumer document stands behind it.
func appendConsumer(b []byte, id *routing.Identity) []byte {
	switch {
	case id == nil:
	case id.Consumer != "":
		return appendPart(b, 'c', id.Consumer)
	case id.Subject != "":
		return appendPart(appendPart(b, 's', id.Plugin), 's', id.Subject)
	}
	return b
}

// appendClaim appends a claim that is a text, a number or a truth value;
// others name nobody.
func appendClaim(b []byte, id *routing.Identity, name string) []byte {
	if id == nil {
		return b
	}
	switch v := id.Claims[name].(type) {
	case string:
		if v != "" {
			return appendPart(b, 't', v)
		}
	case float64:
		return binary.LittleEndian.AppendUint64(append(b, 'n'), math.Float64bits(v))
	case interface{ String() string }: // json.Number
		return appendPart(b, 'n', v.String())
	case bool:
		return strconv.AppendBool(append(b, 'b'), v)
	}
	return b
}

func appendPart(b []byte, kind byte, value string) []byte {
	if len(value) > maxKeyValue {
		digest := sha256.Sum256([]byte(value))
		return append(append(b, kind, 255), digest[:]...)
	}
	b = append(b, kind, byte(len(value)))
	return append(b, value...)
}
