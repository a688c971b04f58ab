package store

import (
	"bytes"
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// slotOfK is where the key k lies.
const slotOfK = 7629

// clusterOfTwo has one node that owns all slots, and one that owns none.
func clusterOfTwo(t *testing.T) (owner, other *redis.Client, id, otherID string) {
	t.Helper()
	// The port that nodes speak on is else the other one plus 10,000, which may be taken.
	bus := strconv.Itoa(testenv.FreePort(t))
	owner = direct(t, testenv.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(testenv.FreePort(t))).Addr)
	other = direct(t, testenv.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus).Addr)
	host, port, _ := net.SplitHostPort(other.Options().Addr)
	for _, err := range []error{
		owner.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(), owner.Do(t.Context(), "cluster", "meet", host, port, bus).Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, 20*time.Second, "the nodes know each other", func() bool {
		slots, err := other.Do(t.Context(), "cluster", "slots").Slice()
		nodes := owner.ClusterNodes(t.Context()).Val()
		return err == nil && len(slots) == 1 && bytes.Count([]byte(nodes), []byte(" connected")) == 2 &&
			bytes.Contains([]byte(other.ClusterInfo(t.Context()).Val()), []byte("cluster_state:ok"))
	})
	return owner, other, owner.Do(t.Context(), "cluster", "myid").Val().(string), other.Do(t.Context(), "cluster", "myid").Val().(string)
}

// setSlot tells a node about the slot of k.
func setSlot(t *testing.T, node *redis.Client, state, id string) {
	t.Helper()
	if err := node.Do(t.Context(), "cluster", "setslot", slotOfK, state, id).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestCallsFollowKeysThatMoveToAnotherNode(t *testing.T) {
	owner, other, id, otherID := clusterOfTwo(t)
	r, _ := start(t, owner.Options().Addr, true, 5*time.Second)
	ask := func(want int64) {
		t.Helper()
		var most atomic.Int64
		var asking sync.WaitGroup
		for range 50 {
			asking.Go(func() {
				ran, err := r.Eval(t.Context(), incr, []string{"k"}, nil)
				if err != nil {
					t.Errorf("a call failed: %v", err)
					return
				}
				for seen := most.Load(); ran[0] > seen && !most.CompareAndSwap(seen, ran[0]); seen = most.Load() {
				}
			})
		}
		asking.Wait()
		if most.Load() != want {
			t.Errorf("ran %d times, want %d", most.Load(), want)
		}
	}
	testenv.Eventually(t, 10*time.Second, "the cluster answers", func() bool {
		_, err := r.Eval(t.Context(), echo, []string{"k"}, []any{1})
		return err == nil
	})
	ask(50)
	// Under way: the new owner has what the old one does not.
	if err := owner.Del(t.Context(), "k").Err(); err != nil {
		t.Fatal(err)
	}
	setSlot(t, other, "importing", id)
	setSlot(t, owner, "migrating", otherID)
	ask(50)
	setSlot(t, other, "node", otherID)
	setSlot(t, owner, "node", otherID)
	ask(100)
	if n := other.Get(t.Context(), "k").Val(); n != "100" {
		t.Errorf("the new owner counted %q", n)
	}
}

// cutting is a line to a server that breaks as the answer of a script comes.
type cutting struct {
	net.Listener
	target string
	armed  atomic.Bool
	lines  sync.WaitGroup
}

func startCutting(t *testing.T, target string) *cutting {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(testenv.FreePort(t))))
	if err != nil {
		t.Fatal(err)
	}
	c := &cutting{Listener: l, target: target}
	c.lines.Go(func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			c.lines.Go(func() { c.serve(down) })
		}
	})
	t.Cleanup(func() { _ = l.Close() })
	return c
}

func (c *cutting) serve(down net.Conn) {
	defer down.Close()
	up, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	c.lines.Go(func() {
		defer up.Close()
		_, _ = io.Copy(up, down)
	})
	defer up.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := up.Read(buffer)
		if err != nil || c.armed.Load() && bytes.HasPrefix(buffer[:n], []byte("*1\r\n:")) {
			return
		}
		if _, err := down.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// The library sends a command again, in a cluster, after a connection broke.
func TestR3AScriptWhoseAnswerIsLostIsNotSentAgain(t *testing.T) {
	for name, cluster := range map[string]bool{"one Redis": false, "a cluster": true} {
		t.Run(name, func(t *testing.T) {
			server := testenv.StartRedis(t, "--cluster-enabled", map[bool]string{true: "yes", false: "no"}[cluster],
				"--cluster-port", strconv.Itoa(testenv.FreePort(t)))
			line, watch := startCutting(t, server.Addr), direct(t, server.Addr)
			if cluster {
				_, port, _ := net.SplitHostPort(line.Addr().String())
				for _, err := range []error{
					watch.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(),
					watch.ConfigSet(t.Context(), "cluster-announce-port", port).Err(),
					watch.ConfigSet(t.Context(), "cluster-announce-ip", "127.0.0.1").Err(),
				} {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			r, stop := start(t, line.Addr().String(), cluster, 5*time.Second)
			testenv.Eventually(t, 10*time.Second, "it answers", func() bool {
				_, err := r.Eval(context.Background(), echo, []string{"k"}, []any{1})
				return err == nil
			})
			line.armed.Store(true)
			// First it is not known there, then it is.
			for want := 1; want <= 2; want++ {
				if got, err := r.Eval(t.Context(), incr, []string{"k"}, nil); err == nil {
					t.Errorf("an answer that was lost is %v", got)
				}
				if n, _ := watch.Get(t.Context(), "k").Int(); n != want {
					t.Errorf("%d calls ran %d times", want, n)
				}
			}
			stop()
			_ = line.Close()
			line.lines.Wait()
		})
	}
}
