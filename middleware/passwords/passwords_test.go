package passwords

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// bcrypted is the cheapest hash of a password.
func bcrypted(t testing.TB, password string, cost int) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(h), "$2a$", "$2y$", 1) // as htpasswd writes it
}

func argoned(password string, m, t uint32, p uint8) string {
	salt := []byte("0123456789abcdef")
	sum := argon2.IDKey([]byte(password), salt, t, m, p, 32)
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", m, t, p, enc(salt), enc(sum))
}

func parse(t testing.TB, lines ...string) *Users {
	t.Helper()
	u, err := Parse([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestPairsAreRightOrWrong(t *testing.T) {
	u := parse(t, "# people", "", "alice:"+bcrypted(t, "wonderland", 4), "bob:"+argoned("builder", 64, 1, 1), "zoë:"+bcrypted(t, "", 4)+"\r")
	for _, c := range []struct {
		user, password string
		want           bool
	}{
		{"alice", "wonderland", true}, {"bob", "builder", true}, {"zoë", "", true},
		{"alice", "builder", false}, {"alice", "", false}, {"Alice", "wonderland", false}, {"bob", "wonderland", false},
		{"eve", "wonderland", false}, {"eve", "builder", false}, {"", "", false}, {"alice", "wonderland\x00", false},
		{"# people", "", false}, {"alice", strings.Repeat("x", maxPassword+1), false},
	} {
		for range 2 { // the second time from what is remembered
			if got, err := u.Verify(NewGate(1, 0), c.user, c.password); got != c.want || err != nil {
				t.Errorf("%q %q: got %t %v, want %t", c.user, c.password, got, err, c.want)
			}
		}
	}
}

func TestAFileIsReadStrictly(t *testing.T) {
	good := bcrypted(t, "x", 4)
	for _, c := range []struct{ name, file, want string }{
		{"nobody", "# none\n\n", "names no user"},
		{"a line without a colon", "alice", "line 1 is not NAME:HASH"},
		{"no name", ":" + good, "line 1 is not NAME:HASH"},
		{"a control character in a name", "a\tb:" + good, "line 1 is not NAME:HASH"},
		{"a name twice", "a:" + good + "\n\na:" + good, `line 3 names the user "a" a second time`},
		{"a plain password", "a:canary", "line 1: the hash is neither bcrypt nor argon2id; write it with htpasswd -B"},
		{"an MD5 hash", "a:$apr1$canary$x", "line 1: the hash is neither bcrypt nor argon2id; write it with htpasswd -B"},
		{"argon2i", "a:$argon2i$v=19$m=64,t=1,p=1$canary$x", "line 1: the hash is neither bcrypt nor argon2id; write it with htpasswd -B"},
		{"a bcrypt hash cut short", "a:" + good[:50], "line 1: the bcrypt hash is malformed"},
		{"a dear bcrypt hash", "a:" + strings.Replace(good, "$04$", "$15$", 1), "line 1: the bcrypt hash has cost 15; at most 14 is accepted"},
		{"an impossible bcrypt hash", "a:" + strings.Replace(good, "$04$", "$40$", 1), "line 1: the bcrypt hash is malformed"},
		{"much memory", "a:" + strings.Replace(argoned("x", 64, 1, 1), "m=64", "m=262145", 1), "line 1: the argon2id hash needs 262145 KiB; at most 262144 are accepted"},
		{"many passes", "a:" + strings.Replace(argoned("x", 64, 1, 1), "t=1", "t=17", 1), "line 1: the argon2id hash makes 17 passes; at most 16 are accepted"},
		{"many threads", "a:" + strings.Replace(argoned("x", 64, 1, 1), "p=1", "p=17", 1), "line 1: the argon2id hash runs 17 threads; at most 16 are accepted"},
		{"no passes", "a:" + strings.Replace(argoned("x", 64, 1, 1), "t=1", "t=0", 1), "line 1: the argon2id hash is malformed; want $argon2id$v=19$m=65536,t=3,p=4$SALT$HASH"},
		{"an empty sum, which all passwords have", "a:$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$", "line 1: the argon2id hash is malformed; want $argon2id$v=19$m=65536,t=3,p=4$SALT$HASH"},
	} {
		_, err := Parse([]byte(c.file))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

func TestGroupsAreReadFromTheirFile(t *testing.T) {
	g, err := ParseGroups([]byte("# who\nadmin: alice\nstaff: alice bob\nstaff: carol alice\n\n"))
	if err != nil || !slices.Equal(g["alice"], []string{"admin", "staff"}) || !slices.Equal(g["carol"], []string{"staff"}) || len(g) != 3 {
		t.Errorf("got %v, %v", g, err)
	}
	for _, bad := range []string{"admin alice", ": alice", "a,b: alice"} {
		if _, err := ParseGroups([]byte("ok: x\n" + bad)); err == nil || err.Error() != "line 2 is not GROUP: USER USER…" {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

// counted is a hash that counts and takes as long as the test lets it.
type counted struct {
	hash
	mu    sync.Mutex
	n     int
	block chan struct{}
}

func (c *counted) matches(password []byte) bool {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	if c.block != nil {
		<-c.block
	}
	return c.hash.matches(password)
}

// watch replaces the hash of every user with one that counts.
func watch(u *Users, block chan struct{}) *counted {
	c := &counted{hash: u.hashes[0], block: block}
	for i := range u.hashes {
		u.hashes[i] = c
	}
	return c
}

func TestARightPairIsRememberedForAWhileAndAWrongOneIsNot(t *testing.T) {
	u := parse(t, "alice:"+bcrypted(t, "x", 4))
	c := watch(u, nil)
	synctest.Test(t, func(t *testing.T) {
		gate := NewGate(1, 0)
		for range 5 {
			if ok, _ := u.Verify(gate, "alice", "x"); !ok {
				t.Fatal("a right pair was refused")
			}
		}
		if c.n != 1 {
			t.Errorf("%d hashes for one pair, want 1", c.n)
		}
		time.Sleep(rememberFor)
		_, _ = u.Verify(gate, "alice", "x")
		for range 3 {
			_, _ = u.Verify(gate, "alice", "y")
		}
		if c.n != 5 {
			t.Errorf("%d hashes in all, want one more for the time and three for the wrong pairs", c.n)
		}
	})
}

func TestRow70AnUnknownNameCostsAHashToo(t *testing.T) {
	u := parse(t, "alice:"+bcrypted(t, "x", 4), "bob:"+bcrypted(t, "x", 4))
	c := watch(u, nil)
	for i, user := range []string{"alice", "eve", "", "eve"} {
		if ok, _ := u.Verify(NewGate(1, 0), user, "wrong"); ok {
			t.Errorf("%q passed", user)
		}
		if c.n != i+1 {
			t.Errorf("%d hashes after %d names", c.n, i+1)
		}
	}
	if first := u.decoy("eve"); first != u.decoy("eve") {
		t.Error("a name is not always checked against the same hash")
	}
}

func TestRow68PairsAreNotConfused(t *testing.T) {
	u := parse(t, "a:"+bcrypted(t, "bc", 4), "ab:"+bcrypted(t, "x", 4))
	if ok, _ := u.Verify(NewGate(1, 0), "a", "bc"); !ok {
		t.Fatal("a right pair was refused")
	}
	if ok, _ := u.Verify(NewGate(1, 0), "ab", "c"); ok {
		t.Error("ab:c passed for a:bc")
	}
	seen := map[[32]byte]string{}
	parts := []string{"", "a", "b", "ab", "a:b", "\x00", "a\x00"}
	for _, a := range parts {
		for _, b := range parts {
			m := u.mac(a, b)
			if other, ok := seen[m]; ok {
				t.Errorf("%q+%q is named as %s", a, b, other)
			}
			seen[m] = fmt.Sprintf("%q+%q", a, b)
		}
	}
}

func TestOnePairAskedForManyTimesAtOnceNeedsOneHash(t *testing.T) {
	u := parse(t, "alice:"+bcrypted(t, "x", 4))
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		c := watch(u, block)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if ok, err := u.Verify(NewGate(1, 0), "alice", "x"); !ok || err != nil {
					t.Errorf("got %t %v", ok, err)
				}
			})
		}
		synctest.Wait()
		close(block)
		wg.Wait()
		if c.n != 1 {
			t.Errorf("%d hashes, want 1", c.n)
		}
	})
}

func TestTheGateBoundsWhatRunsAndWhatWaits(t *testing.T) {
	u := parse(t, "alice:"+bcrypted(t, "x", 4))
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		c := watch(u, block)
		gate := NewGate(2, 3)
		results := make(chan error, 10)
		for i := range 10 {
			go func() {
				_, err := u.Verify(gate, "alice", fmt.Sprint("guess", i))
				results <- err
			}()
		}
		synctest.Wait()
		if c.n != 2 || len(results) != 5 {
			t.Errorf("%d run and %d were turned away, want 2 and 5", c.n, len(results))
		}
		time.Sleep(waitAtMost)
		synctest.Wait()
		if len(results) != 8 {
			t.Errorf("%d were turned away once the others had waited long enough, want 8", len(results))
		}
		close(block)
		synctest.Wait()
		if len(results) != 10 || c.n != 2 {
			t.Errorf("%d are through with %d hashes", len(results), c.n)
		}
		for range 8 {
			if err := <-results; err != ErrBusy {
				t.Errorf("got %v, want ErrBusy", err)
			}
		}
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	u := parse(t, "alice:"+bcrypted(t, "x", 4))
	for i := range rememberMax + 10 {
		u.remember([32]byte{byte(i), byte(i >> 8)})
	}
	n := 0
	u.right.Range(func(any, any) bool { n++; return true })
	if n > rememberMax || n != int(u.count.Load()) {
		t.Errorf("%d pairs are remembered and %d counted, want at most %d", n, u.count.Load(), rememberMax)
	}
}

func BenchmarkVerifyRemembered(b *testing.B) {
	u := parse(b, "alice:"+bcrypted(b, "x", 4))
	gate := NewGate(1, 0)
	b.ReportAllocs()
	for b.Loop() {
		if ok, _ := u.Verify(gate, "alice", "x"); !ok {
			b.Fatal("refused")
		}
	}
}
