package passwords

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// Bounds on what a client may send, in bytes.
const (
	maxUser     = 256
	maxPassword = 1024
)

// Bounds on what is remembered of a file's users.
const (
	rememberFor = time.Minute
	rememberMax = 10_000
)

// ErrBusy says that a password could not be checked because too many are
// being checked. It says nothing about the password.
var ErrBusy = errors.New("too many passwords are being checked")

// Users is one version of a users file. What was found right is remembered
// with it, so that a user who was removed is out with the next version. Safe
// for concurrent use.
type Users struct {
	names  map[string]int
	hashes []hash
	// secret keys what is remembered: memory that leaks holds no password,
	// nor a hash of one that could be guessed at.
	secret [32]byte
	flight singleflight.Group
	right  sync.Map     // [32]byte → time.Time, until when
	count  atomic.Int64 // of entries made
}

// Parse reads a users file: a line NAME:HASH for each user, blank lines and
// lines that begin with # left out. Errors name the line and quote nothing of
// it but the user's name.
func Parse(content []byte) (*Users, error) {
	u := &Users{names: map[string]int{}}
	if _, err := rand.Read(u.secret[:]); err != nil {
		return nil, fmt.Errorf("make a secret: %w", err)
	}
	n := 0
	for line := range bytes.Lines(content) {
		n++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		name, hashed, ok := strings.Cut(text, ":")
		if !ok || !plain(name, maxUser) || name == "" {
			return nil, fmt.Errorf("line %d is not NAME:HASH", n)
		}
		if _, ok := u.names[name]; ok {
			return nil, fmt.Errorf("line %d names the user %q a second time", n, name)
		}
		h, err := parseHash(hashed)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		u.names[name] = len(u.hashes)
		u.hashes = append(u.hashes, h)
	}
	if len(u.hashes) == 0 {
		return nil, errors.New("names no user")
	}
	return u, nil
}

// Verify says whether the pair is right. The error is ErrBusy.
func (u *Users) Verify(gate *Gate, user, password string) (bool, error) {
	if !plain(user, maxUser) || !plain(password, maxPassword) {
		return false, nil // nobody's: RFC 7617 section 2 allows no control characters
	}
	mac := u.mac(user, password)
	if u.remembered(mac) {
		return true, nil
	}
	// A page's requests come at once; they need one hash.
	ok, err, _ := u.flight.Do(string(mac[:]), func() (any, error) {
		if !gate.enter() {
			return false, ErrBusy
		}
		defer gate.leave()
		i, known := u.names[user]
		if !known {
			i = u.decoy(user)
		}
		right := u.hashes[i].matches([]byte(password)) && known
		if right {
			u.remember(mac)
		}
		return right, nil
	})
	return ok.(bool), err
}

// mac names a pair. Lengths keep "a"+"bc" and "ab"+"c" apart.
func (u *Users) mac(parts ...string) (mac [32]byte) {
	h := hmac.New(sha256.New, u.secret[:])
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		h.Write([]byte(p))
	}
	h.Sum(mac[:0])
	return mac
}

// decoy chooses whose hash an unknown name is checked against: always the
// same for one name, and spread over all, so that names cost what known ones
// do also where hashes differ in cost.
func (u *Users) decoy(user string) int {
	mac := u.mac(user)
	return int(binary.BigEndian.Uint64(mac[:8]) % uint64(len(u.hashes)))
}

func (u *Users) remembered(mac [32]byte) bool {
	until, ok := u.right.Load(mac)
	return ok && time.Now().Before(until.(time.Time))
}

// remember forgets all before it would hold too much. That is rare: each
// entry has cost a hash.
func (u *Users) remember(mac [32]byte) {
	if u.count.Add(1) > rememberMax {
		u.right.Clear()
		u.count.Store(1)
	}
	u.right.Store(mac, time.Now().Add(rememberFor))
}

// plain says whether s is within n bytes and without control characters.
func plain(s string, n int) bool {
	if len(s) > n {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
