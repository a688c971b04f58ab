package middleware_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

var algorithmAttacks = []attack{
	passing("control: RS256", func(f *fortress) string { return f.good(nil) }),
	passing("control: ES256", func(f *fortress) string { return f.ec.sign(f.t, alice()) }),
	passing("control: EdDSA", func(f *fortress) string { return f.ed.sign(f.t, alice()) }),
	passing("control: no kid", func(f *fortress) string { return f.head(`{"alg":"RS256"}`) }),
	{"control: HS256", func(f *fortress) *http.Request {
		return bearer("/hs", forge(f.t, jwt.SigningMethodHS256, f.secret, `{"alg":"HS256"}`, jsonOf(f.t, alice())))
	}, "", "alice"},
	{"control: PEM", func(f *fortress) *http.Request { return bearer("/pem", f.good(nil)) }, "", "alice"},
	token("row 56: alg none without a signature", func(f *fortress) string {
		return b64(`{"alg":"none"}`) + "." + b64(jsonOf(f.t, alice())) + "."
	}),
	token("row 56: alg None", func(f *fortress) string {
		return b64(`{"alg":"None"}`) + "." + b64(jsonOf(f.t, alice())) + "."
	}),
	token("row 56: alg nOnE with the signature of another token", func(f *fortress) string {
		_, signature, _ := cutLast(f.good(nil))
		return b64(`{"alg":"nOnE"}`) + "." + b64(jsonOf(f.t, alice())) + "." + signature
	}),
	token("row 56: no alg", func(f *fortress) string { return f.head(`{"typ":"JWT"}`) }),
	token("row 56: alg is a list", func(f *fortress) string { return f.head(`{"alg":["RS256"]}`) }),
	token("row 56: alg in another case", func(f *fortress) string { return f.head(`{"alg":"rs256","kid":"rsa"}`) }),
	token("row 56: alg is empty", func(f *fortress) string { return f.head(`{"alg":""}`) }),
	token("row 56: HS256 with the public key's PEM as secret", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodHS256, f.rsa.pem(f.t), `{"alg":"HS256","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	{"row 56: HS256 with the PEM as secret, where the PEM is the key", func(f *fortress) *http.Request {
		return bearer("/pem", forge(f.t, jwt.SigningMethodHS256, f.rsa.pem(f.t), `{"alg":"HS256"}`, jsonOf(f.t, alice())))
	}, "unauthenticated", ""},
	token("row 56: HS256 with the public key's JWK as secret", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodHS256, []byte(f.rsa.jwk(f.t)), `{"alg":"HS256","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: HS256 with the public key's DER as secret", func(f *fortress) string {
		der, err := x509.MarshalPKIXPublicKey(f.rsa.public)
		if err != nil {
			f.t.Fatal(err)
		}
		return forge(f.t, jwt.SigningMethodHS256, der, `{"alg":"HS256","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: HS256 with an empty secret", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodHS256, []byte{}, `{"alg":"HS256"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: ES256 with the kid of an RSA key", func(f *fortress) string {
		return f.ec.forge(f.t, `{"alg":"ES256","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: RS256 with the kid of an EC key", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"ec"}`) }),
	{"row 56: RS256 where only ES256 is accepted", func(f *fortress) *http.Request { return bearer("/ec", f.good(nil)) }, "unauthenticated", ""},
	token("row 56: PS256 with a good key, but not accepted here", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodPS256, f.rsa.private, `{"alg":"PS256","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: RS512 with a good key, but not accepted here", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodRS512, f.rsa.private, `{"alg":"RS512","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: ES256 by a key on another curve", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodES384, newEC(f.t, "ec", elliptic.P384()).private, `{"alg":"ES256","kid":"ec"}`, jsonOf(f.t, alice()))
	}),
	token("signature of zeros (CVE-2022-21449)", func(f *fortress) string {
		return b64(`{"alg":"ES256","kid":"ec"}`) + "." + b64(jsonOf(f.t, alice())) + "." + b64(string(make([]byte, 64)))
	}),
	token("signature in DER instead of two numbers", func(f *fortress) string {
		return b64(`{"alg":"ES256","kid":"ec"}`) + "." + b64(jsonOf(f.t, alice())) + "." + b64("0\x06\x02\x01\x01\x02\x01\x01")
	}),
	token("a stranger's signature", func(f *fortress) string { return f.stranger.sign(f.t, alice()) }),
	token("claims changed after signing", func(f *fortress) string {
		head, signature, _ := cutLast(f.good(nil))
		head, _, _ = strings.Cut(head, ".")
		return head + "." + b64(jsonOf(f.t, alice().with(claims{"sub": "root"}))) + "." + signature
	}),
	token("header changed after signing", func(f *fortress) string {
		_, after, _ := strings.Cut(f.good(nil), ".")
		return b64(`{"alg":"RS256","kid":"rsa","typ":"JWT" }`) + "." + after
	}),
	token("a signature cut short", func(f *fortress) string { return strings.TrimRight(f.good(nil)[:len(f.good(nil))-4], ".") }),
	token("the last bits of the signature changed, which lenient decoders drop", func(f *fortress) string {
		s := f.good(nil)
		for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
			twin := s[:len(s)-1] + string(c)
			if twin != s && lenient(twin) == lenient(s) {
				return twin
			}
		}
		f.t.Fatal("there is no twin")
		return ""
	}),
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '.')
	return s[:i], s[i+1:], i >= 0
}

// lenient decodes the signature as decoders do that pass over stray bits.
func lenient(token string) string {
	_, signature, _ := cutLast(token)
	var out []byte
	if err := json.Unmarshal([]byte(`"`+strings.NewReplacer("-", "+", "_", "/").Replace(signature)+`=="`), &out); err != nil {
		return err.Error()
	}
	return string(out)
}

var headerAttacks = []attack{
	passing("control: typ at+jwt", func(f *fortress) string { return f.head(`{"alg":"RS256","typ":"at+jwt","kid":"rsa","x5t":"abc"}`) }),
	passing("control: typ application/jwt", func(f *fortress) string { return f.head(`{"alg":"RS256","typ":"application/JWT"}`) }),
	token("row 57: crit with a known claim", func(f *fortress) string { return f.head(`{"alg":"RS256","crit":["exp"],"exp":1,"kid":"rsa"}`) }),
	token("row 57: crit with an unknown name", func(f *fortress) string { return f.head(`{"alg":"RS256","crit":["x"],"x":1,"kid":"rsa"}`) }),
	token("row 57: crit empty", func(f *fortress) string { return f.head(`{"alg":"RS256","crit":[],"kid":"rsa"}`) }),
	token("row 57: crit null", func(f *fortress) string { return f.head(`{"alg":"RS256","crit":null,"kid":"rsa"}`) }),
	token("row 57: b64 false", func(f *fortress) string { return f.head(`{"alg":"RS256","b64":false,"crit":["b64"],"kid":"rsa"}`) }),
	token("row 57: b64 without crit", func(f *fortress) string { return f.head(`{"alg":"RS256","b64":false,"kid":"rsa"}`) }),
	token("row 60: jku to an attacker's keys", func(f *fortress) string {
		return f.stranger.forge(f.t, fmt.Sprintf(`{"alg":"RS256","kid":"rsa","jku":%q}`, f.evil.URL), jsonOf(f.t, alice()))
	}),
	token("row 60: jku to the issuer itself, in a good token", func(f *fortress) string {
		return f.head(fmt.Sprintf(`{"alg":"RS256","kid":"rsa","jku":%q}`, f.issuer.URL))
	}),
	token("row 60: x5u to an attacker's certificate", func(f *fortress) string {
		return f.stranger.forge(f.t, fmt.Sprintf(`{"alg":"RS256","kid":"rsa","x5u":%q}`, f.evil.URL), jsonOf(f.t, alice()))
	}),
	token("row 60: an embedded jwk", func(f *fortress) string {
		return f.stranger.forge(f.t, fmt.Sprintf(`{"alg":"RS256","jwk":%s}`, f.stranger.jwk(f.t)), jsonOf(f.t, alice()))
	}),
	token("row 60: an embedded x5c", func(f *fortress) string {
		return f.stranger.forge(f.t, `{"alg":"RS256","kid":"rsa","x5c":["MIIB"]}`, jsonOf(f.t, alice()))
	}),
	token("row 60: kid is a path", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodHS256, []byte{}, `{"alg":"HS256","kid":"../../dev/null"}`, jsonOf(f.t, alice()))
	}),
	token("row 60: kid is SQL", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"x' UNION SELECT 'secret' --"}`) }),
	token("row 60: kid of 4 KB", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"` + strings.Repeat("k", 4096) + `"}`) }),
	token("row 60: kid with a line break", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"a\r\n{\"level\":\"INFO\"}"}`) }),
	token("row 60: kid is a number", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":1}`) }),
	token("row 60: kid is an object", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":{"a":1}}`) }),
	token("row 60: kid is null", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":null}`) }),
	token("two alg, the second good", func(f *fortress) string { return f.head(`{"alg":"none","alg":"RS256","kid":"rsa"}`) }),
	token("two kid", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"x","kid":"rsa"}`) }),
	token("a logout token", func(f *fortress) string { return f.head(`{"alg":"RS256","typ":"logout+jwt","kid":"rsa"}`) }),
	token("a proof of possession", func(f *fortress) string { return f.head(`{"alg":"RS256","typ":"dpop+jwt","kid":"rsa"}`) }),
	token("typ is no string", func(f *fortress) string { return f.head(`{"alg":"RS256","typ":1,"kid":"rsa"}`) }),
	token("a header that is a list", func(f *fortress) string { return f.head(`["RS256"]`) }),
	token("a header with something after it", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"rsa"} {}`) }),
	token("a header of no UTF-8", func(f *fortress) string { return f.head("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"x\":\"\xff\"}") }),
	token("a header nested a thousand deep", func(f *fortress) string {
		return f.head(`{"alg":"RS256","kid":"rsa","x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`)
	}),
}
