package middleware

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// MTLSConfig is the configuration of the mtls plugin: what the certificate
// that the client showed on this very connection, and that the listener
// verified, says about it.
type MTLSConfig struct {
	// Required refuses requests without a certificate; true if not given.
	Required *bool `json:"required"`
	// Headers towards the instance, and the field of the certificate in each.
	Headers map[string]string `json:"headers"`
	// Allow lists accepted values by field; of all of them one has to be
	// there. Empty, every verified certificate passes.
	Allow map[string][]string `json:"allow"`

	headers []certHeader
	allow   []certAllow
}

type certHeader struct {
	name  string
	field certField
	// list says that the field may have several values.
	list bool
}

type certAllow struct {
	field  certField
	values []string
}

// certField reads the values of one field.
type certField func(*x509.Certificate) []string

// certFields are the fields by name.
func certFields() map[string]certField {
	one := func(s string) []string {
		if s == "" {
			return nil
		}
		return []string{s}
	}
	return map[string]certField{
		"subject":    func(c *x509.Certificate) []string { return one(c.Subject.String()) },
		"subject_cn": func(c *x509.Certificate) []string { return one(c.Subject.CommonName) },
		"issuer":     func(c *x509.Certificate) []string { return one(c.Issuer.String()) },
		"serial":     func(c *x509.Certificate) []string { return one(fmt.Sprintf("%x", c.SerialNumber)) },
		"fingerprint_sha256": func(c *x509.Certificate) []string {
			sum := sha256.Sum256(c.Raw)
			return one(hex.EncodeToString(sum[:]))
		},
		"san_dns":   func(c *x509.Certificate) []string { return c.DNSNames },
		"san_email": func(c *x509.Certificate) []string { return c.EmailAddresses },
		"san_uri":   func(c *x509.Certificate) []string { return uris(c.URIs) },
		"not_after": func(c *x509.Certificate) []string { return one(c.NotAfter.UTC().Format(time.RFC3339)) },
	}
}

func uris(list []*url.URL) []string {
	var out []string
	for _, u := range list {
		out = append(out, u.String())
	}
	return out
}

func mtlsPlugin() *Plugin {
	return Define[MTLSConfig]("mtls", func(c *gin.Context, x *routing.Exchange, config *MTLSConfig) {
		config.handle(c, x)
	})
}

// Prepare implements PluginConfig.
func (c *MTLSConfig) Prepare(at *Place) routing.Faults {
	var faults routing.Faults
	fault := func(field, format string, args ...any) {
		faults = append(faults, routing.Fault{Field: at.At(field), Message: fmt.Sprintf(format, args...)})
	}
	if c.Required == nil {
		required := true
		c.Required = &required
	}
	fields := certFields()
	seen := map[string]bool{}
	for _, name := range sortedKeys(c.Headers) {
		field, ok := fields[c.Headers[name]]
		switch k := canonical(name); {
		case headerNameFault(name) != "":
			fault("headers."+name, "%s", headerNameFault(name))
		case seen[k]:
			fault("headers."+name, "names the same header as another entry, in another case")
		case !ok:
			fault("headers."+name, "is no field of a certificate; accepted: %s", join(sortedKeys(fields)))
		default:
			seen[k] = true
			c.headers = append(c.headers, certHeader{k, field, strings.HasPrefix(c.Headers[name], "san_")})
		}
	}
	for _, name := range sortedKeys(c.Allow) {
		field, ok := fields[name]
		switch list := c.Allow[name]; {
		case !ok || name == "not_after" || name == "subject" || name == "issuer":
			fault("allow."+name, "is no field to allow by; accepted: fingerprint_sha256, san_dns, san_email, san_uri, serial, subject_cn")
		case len(list) == 0 || slices.Contains(list, ""):
			fault("allow."+name, "is empty or holds an empty value")
		case len(list) > maxACLValues:
			fault("allow."+name, "has %d values; at most %d are accepted", len(list), maxACLValues)
		default:
			if name == "fingerprint_sha256" || name == "serial" {
				list = hexValues(list)
			}
			c.allow = append(c.allow, certAllow{field, list})
		}
	}
	if c.Allow != nil && len(c.Allow) == 0 {
		fault("allow", "is empty, so that nobody could pass; leave it out to accept every verified certificate")
	}
	return faults
}

// hexValues writes hexadecimal values as certFields does: lower case, and
// without the colons that other programs print.
func hexValues(list []string) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = strings.ToLower(strings.ReplaceAll(v, ":", ""))
	}
	return out
}

// OwnHeaders implements routing.HeaderOwner.
func (c *MTLSConfig) OwnHeaders() []string {
	names := make([]string, len(c.headers))
	for i, h := range c.headers {
		names[i] = h.name
	}
	return names
}

func (c *MTLSConfig) handle(gc *gin.Context, x *routing.Exchange) {
	cert := verifiedCertificate(gc.Request.TLS)
	if cert == nil {
		if *c.Required {
			Reject(gc, "mtls", &routing.Refusal{Code: routing.CodeUnauthenticated, Detail: "a client certificate is needed here"})
		}
		return
	}
	if len(c.allow) > 0 && !slices.ContainsFunc(c.allow, func(a certAllow) bool {
		return slices.ContainsFunc(a.field(cert), func(v string) bool { return slices.Contains(a.values, v) })
	}) {
		Reject(gc, "mtls", &routing.Refusal{Code: routing.CodeForbidden, Detail: "this client certificate may not use this route"})
		return
	}
	h := gc.Request.Header
	for _, header := range c.headers {
		value := headerList(header.field(cert), header.list)
		if len(value) > maxHeaderValue { // a part of it would say something else
			Reject(gc, "mtls", &routing.Refusal{Code: routing.CodeForbidden, Detail: "a field of the client certificate is too long"})
			return
		}
		tell(h, header.name, value)
	}
	x.Identity = &routing.Identity{Plugin: "mtls", Subject: certSubject(cert)}
}

// verifiedCertificate is what the client showed, if the listener found it to
// lead to an authority that it trusts and its time is not over.
func verifiedCertificate(state *tls.ConnectionState) *x509.Certificate {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil
	}
	cert := state.VerifiedChains[0][0]
	if time.Now().After(cert.NotAfter) { // connections may outlive it
		return nil
	}
	return cert
}

// certSubject names whoever holds the certificate: workloads have a URI
// instead of a common name.
func certSubject(cert *x509.Certificate) string {
	switch {
	case cert.Subject.CommonName != "":
		return cert.Subject.CommonName
	case len(cert.URIs) > 0:
		return cert.URIs[0].String()
	case len(cert.DNSNames) > 0:
		return cert.DNSNames[0]
	}
	return fmt.Sprintf("%x", cert.SerialNumber)
}

// headerList writes values with commas between. An authority may sign any
// bytes: what is not printable ASCII, and in a list the commas of a value,
// are escaped as in a URL.
func headerList(values []string, list bool) string {
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		for j := range len(v) {
			if c := v[j]; c < ' ' || c > '~' || c == '%' || list && c == ',' {
				fmt.Fprintf(&b, "%%%02X", c)
			} else {
				b.WriteByte(c)
			}
		}
	}
	return b.String()
}
