package passwords

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// What one hash may cost. Someone who may write the file could otherwise stop
// the gateway with it.
const (
	maxBcryptCost   = 14
	maxArgonMemory  = 256 << 10 // KiB
	maxArgonPasses  = 16
	maxArgonThreads = 16
)

// hash is a password's, in one of the accepted forms.
type hash interface{ matches(password []byte) bool }

// parseHash reads a hash. No error quotes it.
func parseHash(s string) (hash, error) {
	switch {
	case strings.HasPrefix(s, "$argon2id$"):
		return parseArgon(s)
	case strings.HasPrefix(s, "$2"):
		return parseBcrypt(s)
	}
	return nil, errors.New("the hash is neither bcrypt nor argon2id; write it with htpasswd -B")
}

// bcryptHash is what bcrypt.CompareHashAndPassword reads.
type bcryptHash []byte

func parseBcrypt(s string) (hash, error) {
	// The whole form is checked here: a hash that fails only when it is
	// compared would do so at once, and tell by its speed that it is there.
	if ok, _ := regexp.MatchString(`^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$`, s); !ok {
		return nil, errors.New("the bcrypt hash is malformed")
	}
	cost, err := bcrypt.Cost([]byte(s))
	if err != nil {
		return nil, errors.New("the bcrypt hash is malformed")
	}
	if cost > maxBcryptCost {
		return nil, fmt.Errorf("the bcrypt hash has cost %d; at most %d is accepted", cost, maxBcryptCost)
	}
	return bcryptHash(s), nil
}

func (h bcryptHash) matches(password []byte) bool {
	return bcrypt.CompareHashAndPassword(h, password) == nil
}

type argonHash struct {
	memory, passes uint32
	threads        uint8
	salt, sum      []byte
}

func parseArgon(s string) (hash, error) {
	malformed := errors.New("the argon2id hash is malformed; want $argon2id$v=19$m=65536,t=3,p=4$SALT$HASH")
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[2] != "v=19" {
		return nil, malformed
	}
	m, t, p, err := argonCost(parts[3])
	if err != nil {
		return nil, malformed
	}
	switch {
	case m > maxArgonMemory:
		return nil, fmt.Errorf("the argon2id hash needs %d KiB; at most %d are accepted", m, maxArgonMemory)
	case t > maxArgonPasses:
		return nil, fmt.Errorf("the argon2id hash makes %d passes; at most %d are accepted", t, maxArgonPasses)
	case p > maxArgonThreads:
		return nil, fmt.Errorf("the argon2id hash runs %d threads; at most %d are accepted", p, maxArgonThreads)
	}
	h := &argonHash{memory: uint32(m), passes: uint32(t), threads: uint8(p)}
	decode := base64.RawStdEncoding.Strict().DecodeString
	if h.salt, err = decode(parts[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return nil, malformed
	}
	// A short hash would be easy to hit, an empty one is what every password
	// has.
	if h.sum, err = decode(parts[5]); err != nil || len(h.sum) < 16 || len(h.sum) > 64 {
		return nil, malformed
	}
	return h, nil
}

// argonCost reads "m=65536,t=3,p=4"; all are at least 1.
func argonCost(s string) (m, t, p uint64, err error) {
	fields := strings.Split(s, ",")
	if len(fields) != 3 {
		return 0, 0, 0, strconv.ErrSyntax
	}
	for i, to := range []*uint64{&m, &t, &p} {
		number, ok := strings.CutPrefix(fields[i], "mtp"[i:i+1]+"=")
		if !ok {
			return 0, 0, 0, strconv.ErrSyntax
		}
		if *to, err = strconv.ParseUint(number, 10, 32); err != nil {
			return 0, 0, 0, err
		}
		if *to == 0 {
			return 0, 0, 0, strconv.ErrRange
		}
	}
	return m, t, p, nil
}

func (h *argonHash) matches(password []byte) bool {
	sum := argon2.IDKey(password, h.salt, h.passes, h.memory, h.threads, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}
