package memo_test

import (
	"strconv"
	"testing"
	"testing/quick"
	"time"

	"github.com/sluice-gateway/sluice/middleware/memo"
)

// sameShard makes keys that share a shard, so that its order can be seen.
func sameShard(n byte) memo.Key { return memo.Key{0, n} }

func TestWhatWasUsedLongestAgoGoesFirst(t *testing.T) {
	m, now := memo.New[int](32*100), time.Now()
	later := now.Add(time.Hour)
	m.Put(sameShard(1), 1, 50, later)
	m.Put(sameShard(2), 2, 50, later)
	if _, ok := m.Get(sameShard(1), now); !ok {
		t.Fatal("the first entry is gone before there is need")
	}
	m.Put(sameShard(3), 3, 50, later)
	for key, want := range map[byte]bool{1: true, 2: false, 3: true} {
		if v, ok := m.Get(sameShard(key), now); ok != want || ok && v != int(key) {
			t.Errorf("entry %d: %v %v, want %v", key, v, ok, want)
		}
	}
}

func TestWhatExpiredIsNotFoundAndGivesItsRoomBack(t *testing.T) {
	m, now := memo.New[int](32*100), time.Now()
	m.Put(sameShard(1), 1, 100, now.Add(time.Second))
	if _, ok := m.Get(sameShard(1), now.Add(time.Second)); ok || m.Len() != 0 {
		t.Errorf("an expired entry was found (%d left)", m.Len())
	}
	m.Put(sameShard(2), 2, 100, now.Add(time.Second))
	if _, ok := m.Get(sameShard(2), now); !ok {
		t.Error("there was no room after an entry had expired")
	}
}

func TestAMemoStaysWithinItsBytes(t *testing.T) {
	m, now := memo.New[int](32*100), time.Now()
	for i := range 10_000 {
		m.Put(memo.Key{}.Of(strconv.Itoa(i)), i, 10, now.Add(time.Hour))
	}
	if m.Len() > 320 {
		t.Errorf("%d entries of 10 bytes in 3200", m.Len())
	}
	m.Put(sameShard(9), 9, 101, now.Add(time.Hour))
	if _, ok := m.Get(sameShard(9), now); ok {
		t.Error("an entry larger than its room was kept")
	}
	for v := range 3 { // replaced, not added
		m.Put(sameShard(1), v, 60, now.Add(time.Hour))
	}
	if v, ok := m.Get(sameShard(1), now); !ok || v != 2 {
		t.Errorf("after replacing, the entry is %d %v", v, ok)
	}
}

// TestRow68NoTwoPairsShareAKey: a scope and a text that are joined without a
// boundary would let one client's token find another's answer.
func TestRow68NoTwoPairsShareAKey(t *testing.T) {
	distinct := func(scope1, scope2 memo.Key, text1, text2 string) bool {
		same := scope1 == scope2 && text1 == text2
		return (scope1.Of(text1) == scope2.Of(text2)) == same
	}
	if err := quick.Check(distinct, nil); err != nil {
		t.Error(err)
	}
	var a, b memo.Key
	a[31], b[31] = 'x', 'y'
	for _, pair := range [][2]string{{"token", "token"}, {"xtoken", "token"}, {"", "x"}} {
		if a.Of(pair[0]) == b.Of(pair[1]) {
			t.Errorf("%q and %q share a key", pair[0], pair[1])
		}
	}
}

func TestLookingUpAllocatesNothing(t *testing.T) {
	m, now := memo.New[int](1<<20), time.Now()
	token := string(make([]byte, 900))
	m.Put(memo.Key{}.Of(token), 1, 10, now.Add(time.Hour))
	if n := testing.AllocsPerRun(100, func() { m.Get(memo.Key{}.Of(token), now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
