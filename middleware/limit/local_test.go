package limit

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// model is one rule, counted in the plainest way: by keeping every request
// that passed.
type model struct {
	rule   Rule
	passed []time.Time // of a leaky bucket, when they were sent
}

// wait says whether a request fits at t, and how long it has to wait.
func (m *model) wait(t time.Time) (time.Duration, bool) {
	interval := m.rule.Per / time.Duration(m.rule.Requests)
	switch m.rule.Algorithm {
	case FixedWindow:
		n := 0
		for _, p := range m.passed {
			if p.Truncate(m.rule.Per).Equal(t.Truncate(m.rule.Per)) {
				n++
			}
		}
		return 0, n < m.rule.Requests
	case SlidingWindow:
		n := 0
		for _, p := range m.passed {
			if t.Sub(p) < m.rule.Per {
				n++
			}
		}
		return 0, n < m.rule.Requests
	case TokenBucket:
		level, at := time.Duration(m.rule.Burst)*interval, t
		if len(m.passed) > 0 {
			at = m.passed[0]
		}
		for _, p := range m.passed {
			level = min(level+p.Sub(at), time.Duration(m.rule.Burst)*interval) - interval
			at = p
		}
		return 0, level+t.Sub(at) >= interval
	default:
		next, waiting := t, 0
		for _, p := range m.passed {
			if p.After(t) {
				waiting++
			}
			if free := p.Add(interval); free.After(next) {
				next = free
			}
		}
		wait := next.Sub(t)
		return wait, wait == 0 || waiting < m.rule.Queue && wait <= m.rule.MaxWait
	}
}

func rulesOfEveryKind() [][]Rule {
	second := time.Second
	return [][]Rule{
		{{Algorithm: TokenBucket, Requests: 10, Per: second, Burst: 10}},
		{{Algorithm: TokenBucket, Requests: 10, Per: second, Burst: 25}},
		{{Algorithm: TokenBucket, Requests: 10, Per: second, Burst: 1}},
		{{Algorithm: TokenBucket, Requests: 5, Per: second, Burst: 5}, {Algorithm: TokenBucket, Requests: 20, Per: 10 * second, Burst: 20}},
		{{Algorithm: FixedWindow, Requests: 7, Per: second}},
		{{Algorithm: FixedWindow, Requests: 5, Per: second}, {Algorithm: FixedWindow, Requests: 20, Per: 10 * second}},
		{{Algorithm: SlidingWindow, Requests: 7, Per: second}},
		{{Algorithm: SlidingWindow, Requests: 1, Per: second}},
		{{Algorithm: SlidingWindow, Requests: 5, Per: second}, {Algorithm: SlidingWindow, Requests: 20, Per: 10 * second}},
		{{Algorithm: LeakyBucket, Requests: 10, Per: second, Queue: 5, MaxWait: second}},
		{{Algorithm: LeakyBucket, Requests: 10, Per: second, Queue: 20, MaxWait: second / 4}},
		{{Algorithm: LeakyBucket, Requests: 10, Per: second, Queue: 0, MaxWait: second}},
	}
}

func newLimiter(rules []Rule) *Local {
	var windows []*Window
	for _, r := range Sort(rules) {
		windows = append(windows, NewWindow(r))
	}
	return NewLocal(windows...)
}

func TestEveryAlgorithmAdmitsExactlyWhatAPlainModelAdmits(t *testing.T) {
	for _, rules := range rulesOfEveryKind() {
		t.Run(fmt.Sprint(rules), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for seed := range uint64(20) {
					againstModel(t, rules, seed)
				}
			})
		})
	}
}

func againstModel(t *testing.T, rules []Rule, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	l := newLimiter(rules)
	models := make([]*model, len(rules))
	for i := range rules {
		models[i] = &model{rule: rules[i]}
	}
	for now, n := time.Now(), 0; n < 400; n++ {
		if random.IntN(3) > 0 { // some come at once
			now = now.Add(time.Duration(random.Int64N(int64(200 * time.Millisecond))))
		}
		fits, wait := true, time.Duration(0)
		for _, m := range models {
			w, ok := m.wait(now)
			fits, wait = fits && ok, max(wait, w)
		}
		d := l.Take(now, []byte("a"))
		if d.Allowed != fits || fits && d.Wait != wait {
			t.Fatalf("seed %d, request %d at %s: got %+v, the model says %v after %s", seed, n, now, d, fits, wait)
		}
		if !fits {
			// It has to pass at RetryAfter, and not before.
			for _, c := range []struct {
				after time.Duration
				fits  bool
			}{{d.RetryAfter, true}, {d.RetryAfter - 1, false}} {
				ok := true
				for _, m := range models {
					_, one := m.wait(now.Add(c.after))
					ok = ok && one
				}
				if ok != c.fits {
					t.Fatalf("seed %d, request %d: RetryAfter is %s; after %s the model says %v", seed, n, d.RetryAfter, c.after, ok)
				}
			}
			continue
		}
		for _, m := range models {
			w, _ := m.wait(now)
			m.passed = append(m.passed, now.Add(w))
		}
	}
}

func TestWhatIsLeftIsWhatPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, rules := range rulesOfEveryKind() {
			l, now := newLimiter(rules), time.Now()
			d := l.Take(now, []byte("a"))
			for left := d.Remaining; left > 0; left-- {
				if d = l.Take(now, []byte("a")); !d.Allowed || d.Remaining != left-1 || d.Reset <= 0 {
					t.Fatalf("%v: with %d left the next got %+v", rules, left, d)
				}
			}
			if d = l.Take(now, []byte("a")); d.Allowed || d.Remaining != 0 || d.RetryAfter <= 0 || d.Reset != d.RetryAfter {
				t.Errorf("%v: with none left the next got %+v", rules, d)
			}
			if d = l.Take(now, []byte("b")); !d.Allowed {
				t.Errorf("%v: another key was refused", rules)
			}
		}
	})
}

func TestManyAtOnceNeverGetMoreThanTheLimit(t *testing.T) {
	for _, rules := range rulesOfEveryKind() {
		l, now := newLimiter(rules), time.Now()
		most := 1 << 30
		for _, r := range rules {
			switch r.Algorithm {
			case TokenBucket:
				most = min(most, r.Burst)
			case LeakyBucket:
				most = min(most, 1+int(r.slack(1)/r.interval(1)))
			default:
				most = min(most, r.Requests)
			}
		}
		var passed atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 200 {
					if l.Take(now, []byte("a")).Allowed {
						passed.Add(1)
					}
				}
			})
		}
		all.Wait()
		if int(passed.Load()) != most {
			t.Errorf("%v: %d passed at one instant, want %d", rules, passed.Load(), most)
		}
	}
}

// Two configurations of one document share windows while requests of the old
// one are still under way; in whatever order they were written, they must not
// wait for each other for ever.
func TestLimitersThatShareWindowsDoNotLockEachOtherOut(t *testing.T) {
	one := Rule{Algorithm: TokenBucket, Requests: 10, Per: time.Second, Burst: 10}
	two := Rule{Algorithm: TokenBucket, Requests: 50, Per: time.Minute, Burst: 50}
	windows := map[Rule]*Window{one: NewWindow(one), two: NewWindow(two)}
	var all sync.WaitGroup
	for _, rules := range [][]Rule{{one, two}, {two, one}} {
		var own []*Window
		for _, r := range Sort(rules) {
			own = append(own, windows[r])
		}
		l := NewLocal(own...)
		all.Go(func() {
			for range 20000 {
				l.Take(time.Now(), []byte("a"))
			}
		})
	}
	all.Wait()
	if len(Sort([]Rule{one, two, one})) != 2 {
		t.Error("a rule that stands there twice would lock itself out")
	}
}

func TestARequestThatReadTheClockEarlierIsCountedAllTheSame(t *testing.T) {
	for _, rules := range rulesOfEveryKind() {
		l, now := newLimiter(rules), time.Now().Truncate(time.Minute).Add(30*time.Second)
		for passed := 0; l.Take(now, []byte("a")).Allowed; passed++ {
			if passed > 100 {
				t.Fatalf("%v: no end", rules)
			}
		}
		if l.Take(now.Add(-time.Microsecond), []byte("a")).Allowed {
			t.Errorf("%v: it passed", rules)
		}
	}
}

func TestMemoryIsBoundedAndKeysInUseStay(t *testing.T) {
	for _, rule := range []Rule{
		{Algorithm: TokenBucket, Requests: 2, Per: time.Hour, Burst: 2},
		{Algorithm: SlidingWindow, Requests: 1000, Per: time.Hour},
	} {
		w, now := NewWindow(rule), time.Now()
		l := NewLocal(w)
		key := make([]byte, 1000) // long keys fill it sooner
		for i := range 60_000 {
			copy(key, strconv.Itoa(i))
			l.Take(now, key)
			if rule.Algorithm == TokenBucket && i%200 == 0 && i > 400 && l.Take(now, []byte("busy")).Allowed {
				t.Fatal("a key in use was forgotten, and with it what it had used up")
			} else if i <= 400 {
				l.Take(now, []byte("busy"))
			}
		}
		for i := range w.shards {
			s := &w.shards[i]
			if s.bytes > windowBytes/shardCount || s.bytes < windowBytes/shardCount/2 {
				t.Errorf("%s: a shard holds %d bytes of at most %d", rule, s.bytes, windowBytes/shardCount)
			}
			bytes, linked := 0, 0
			for e := s.first; e != nil; e = e.next {
				linked++
				bytes += entryBytes + len(e.key) + 8*len(e.log)
			}
			if linked != len(s.keys) || bytes != s.bytes {
				t.Errorf("%s: %d keys, %d linked, %d bytes counted as %d", rule, len(s.keys), linked, bytes, s.bytes)
			}
		}
	}
}

func TestALongLogTakesTheRoomOfThoseNotInUse(t *testing.T) {
	w := NewWindow(Rule{Algorithm: SlidingWindow, Requests: 10_000, Per: time.Hour})
	l, now := NewLocal(w), time.Now()
	for i := range 800 { // 80 KB each, twice what there is room for
		key := []byte(strconv.Itoa(i))
		for range 10_000 {
			l.Take(now, key)
		}
		if l.Take(now, key).Allowed {
			t.Fatal("one more than the limit passed")
		}
	}
	for i := range w.shards {
		if n := w.shards[i].bytes; n > windowBytes/shardCount {
			t.Errorf("a shard holds %d bytes", n)
		}
	}
}

func TestKeysThatAreAsGoodAsNewAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, rules := range rulesOfEveryKind() {
			l, now := newLimiter(rules[:1]), time.Now()
			for i := range 20_000 {
				now = now.Add(10 * time.Millisecond)
				l.Take(now, []byte(strconv.Itoa(i)))
			}
			kept := 0
			for i := range l.windows[0].shards {
				kept += len(l.windows[0].shards[i].keys)
			}
			if kept > 1000 {
				t.Errorf("%v: %d keys are kept of some hundred in use", rules, kept)
			}
		}
	})
}

func TestTheShareOfOneGatewayIsNeverMoreThanItsPart(t *testing.T) {
	r := Rule{Algorithm: TokenBucket, Requests: 100, Per: time.Second, Burst: 201}
	if got := r.Share(3); got.Requests != 33 || got.Burst != 67 {
		t.Errorf("a third is %+v", got)
	}
	if got := r.Share(500); got.Requests != 1 || got.Burst != 1 {
		t.Errorf("a five hundredth is %+v", got)
	}
	if r.Share(1) != r {
		t.Error("the whole is another")
	}
}

func BenchmarkLocalTake(b *testing.B) {
	for name, rules := range map[string][]Rule{
		"token_bucket":   {{Algorithm: TokenBucket, Requests: 1000, Per: time.Second, Burst: 1000}},
		"two windows":    {{Algorithm: TokenBucket, Requests: 5, Per: time.Second, Burst: 5}, {Algorithm: TokenBucket, Requests: 1000, Per: time.Hour, Burst: 1000}},
		"fixed_window":   {{Algorithm: FixedWindow, Requests: 1000, Per: time.Second}},
		"sliding_window": {{Algorithm: SlidingWindow, Requests: 1000, Per: time.Second}},
		"leaky_bucket":   {{Algorithm: LeakyBucket, Requests: 1000, Per: time.Second, Queue: 10, MaxWait: time.Second}},
	} {
		keys := make([][]byte, 1024)
		for i := range keys {
			keys[i] = []byte("consumer-" + strconv.Itoa(i))
		}
		b.Run(name, func(b *testing.B) {
			l := newLimiter(rules)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := rand.IntN(len(keys)); pb.Next(); i++ {
					l.Take(time.Now(), keys[i%len(keys)])
				}
			})
		})
	}
}
