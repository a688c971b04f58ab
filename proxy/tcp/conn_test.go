package tcp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// couple is a Conn and its other side.
func couple(t testing.TB) (*Conn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return New(near.(*net.TCPConn)), far.(*net.TCPConn)
}

func TestAConnDoesWhatEveryNetConnDoes(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		near, far := couple(t)
		return near, New(far), func() { _, _ = near.Close(), far.Close() }, nil
	})
}

const (
	soon     = 20 * time.Millisecond
	patience = 20 * time.Second
)

func TestADeadlineEndsAReadWheneverItWasSet(t *testing.T) {
	past := time.Unix(1, 0)
	for _, tc := range []struct {
		name   string
		before func(c *Conn)
		while  func(c *Conn)
	}{
		{name: "before it begins", before: func(c *Conn) { _ = c.SetReadDeadline(time.Now().Add(soon)) }},
		{name: "to the past, before it begins", before: func(c *Conn) { _ = c.SetReadDeadline(past) }},
		{name: "while it waits", while: func(c *Conn) { _ = c.SetReadDeadline(time.Now().Add(soon)) }},
		{name: "to the past, while it waits", while: func(c *Conn) { _ = c.SetReadDeadline(past) }},
		{
			name:   "to an earlier time, while it waits",
			before: func(c *Conn) { _ = c.SetReadDeadline(time.Now().Add(time.Hour)) },
			while:  func(c *Conn) { _ = c.SetDeadline(time.Now().Add(soon)) },
		},
		{
			name: "to a later time than one that nobody waited for",
			before: func(c *Conn) {
				_ = c.SetReadDeadline(time.Now().Add(soon / 4))
				_ = c.SetReadDeadline(time.Now().Add(soon))
			},
		},
		{
			name: "after a wait that was ended",
			before: func(c *Conn) {
				_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					panic(err)
				}
				_ = c.SetReadDeadline(time.Now().Add(soon))
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := couple(t)
			if tc.before != nil {
				tc.before(c)
			}
			failed := make(chan error)
			go func() {
				n, err := c.Read(make([]byte, 8))
				if n != 0 {
					err = errors.New("bytes came")
				}
				failed <- err
			}()
			if tc.while != nil {
				awaitWaiting(t, c)
				tc.while(c)
			}
			err := <-failed
			timeout, ok := errors.AsType[net.Error](err)
			if !ok || !timeout.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(err.Error(), "read tcp ") {
				t.Errorf("the read ended with %v", err)
			}
		})
	}
}

// awaitWaiting returns once a read of c waits for bytes.
func awaitWaiting(t *testing.T, c *Conn) {
	t.Helper()
	testenv.Eventually(t, patience, "a read that waits", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.waiting > 0
	})
}

func TestADeadlinePassesEvenIfBytesAreThere(t *testing.T) {
	c, far := couple(t)
	if _, err := far.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 8)
	for _, at := range []time.Time{time.Unix(1, 0), time.Now()} {
		_ = c.SetReadDeadline(at)
		if n, err := c.Read(p); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d, %v", n, err)
		}
	}
	_ = c.SetReadDeadline(time.Time{})
	if n, err := c.Read(p); string(p[:n]) != "late" || err != nil {
		t.Errorf("without a deadline: %q, %v", p[:n], err)
	}
}

func TestADeadlineThatWasTakenBackEndsNothing(t *testing.T) {
	for name, later := range map[string]time.Time{"no deadline": {}, "a later one": time.Now().Add(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, far := couple(t)
			// It is armed by a read that waits, which must have its bytes before.
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			read := make(chan string)
			p := make([]byte, 8)
			go func() {
				n, err := c.Read(p)
				if err != nil {
					read <- err.Error()
				}
				read <- string(p[:n])
			}()
			awaitWaiting(t, c)
			_, _ = far.Write([]byte("one"))
			if got := <-read; got != "one" {
				t.Fatalf("read %q", got)
			}
			_ = c.SetReadDeadline(later)
			armed := c.armed
			go func() {
				n, err := c.Read(p)
				if err != nil {
					read <- err.Error()
				}
				read <- string(p[:n])
			}()
			testenv.Eventually(t, patience, "the armed time to pass, and another to be armed", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.armed != armed
			})
			_, _ = far.Write([]byte("two"))
			if got := <-read; got != "two" {
				t.Errorf("read %q", got)
			}
		})
	}
}

func TestEndsAndFaultsAreThoseOfTCP(t *testing.T) {
	p := make([]byte, 8)
	t.Run("the other side closes", func(t *testing.T) {
		c, far := couple(t)
		_ = far.Close()
		if n, err := c.Read(p); n != 0 || err != io.EOF {
			t.Errorf("read %d, %v", n, err)
		}
		if n, err := c.ReadNow(p); n != 0 || err != io.EOF {
			t.Errorf("read now %d, %v", n, err)
		}
	})
	t.Run("the other side resets", func(t *testing.T) {
		c, far := couple(t)
		_ = far.SetLinger(0)
		_ = far.Close()
		if n, err := c.Read(p); n != 0 || !errors.Is(err, syscall.ECONNRESET) || !strings.HasPrefix(err.Error(), "read tcp ") {
			t.Errorf("read %d, %v", n, err)
		}
		if n, err := c.Write(p); n != 0 || !errors.Is(err, syscall.EPIPE) || !strings.HasPrefix(err.Error(), "write tcp ") {
			t.Errorf("wrote %d, %v", n, err)
		}
	})
	t.Run("this side is closed", func(t *testing.T) {
		c, _ := couple(t)
		_ = c.Close()
		_, rerr := c.Read(p)
		_, werr := c.Write(p)
		_, nerr := c.ReadNow(p)
		for _, err := range []error{rerr, werr, nerr} {
			if !errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "raw-") {
				t.Errorf("a closed connection fails with %v", err)
			}
		}
		if c.Quiet() {
			t.Error("a closed connection is quiet")
		}
	})
	t.Run("closed while a read waits", func(t *testing.T) {
		c, _ := couple(t)
		failed := make(chan error)
		go func() { _, err := c.Read(p); failed <- err }()
		awaitWaiting(t, c)
		_ = c.Close()
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the read ended with %v", err)
		}
	})
	t.Run("nothing is asked for", func(t *testing.T) {
		c, _ := couple(t)
		if n, err := c.Read(nil); n != 0 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		if n, err := c.Write(nil); n != 0 || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	})
}

func TestALookSeesBytesAndEndsAndTakesNothing(t *testing.T) {
	c, far := couple(t)
	if !c.Quiet() {
		t.Error("nothing came, and it is not quiet")
	}
	if n, err := c.ReadNow(make([]byte, 8)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("where nothing is: %d, %v", n, err)
	}
	_, _ = far.Write([]byte("abc"))
	p := make([]byte, 2)
	if _, err := io.ReadFull(c, p); err != nil || string(p) != "ab" {
		t.Fatalf("read %q, %v", p, err)
	}
	if c.Quiet() {
		t.Error("a byte is there, and it is quiet")
	}
	if n, err := c.ReadNow(p); string(p[:n]) != "c" || err != nil {
		t.Errorf("read now %q, %v", p[:n], err)
	}
	_ = far.Close()
	testenv.Eventually(t, patience, "the other side's end", func() bool { return !c.Quiet() })
}

func TestWhatIsTakenBackIsReadAgainBeforeAnythingElse(t *testing.T) {
	for name, read := range map[string]func(c *Conn) (string, error){
		"in pieces": func(c *Conn) (string, error) {
			b, err := io.ReadAll(iotest.OneByteReader(c))
			return string(b), err
		},
		"now": func(c *Conn) (string, error) {
			p := make([]byte, 4)
			n, err := c.ReadNow(p)
			if err != nil {
				return "", err
			}
			rest, err := io.ReadAll(struct{ io.Reader }{c})
			return string(p[:n]) + string(rest), err
		},
		"by copying": func(c *Conn) (string, error) {
			var b strings.Builder
			_, err := io.Copy(&b, c)
			return b.String(), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, far := couple(t)
			_, _ = far.Write([]byte("abcdef"))
			_ = far.Close()
			p := make([]byte, 3)
			if _, err := io.ReadFull(c, p); err != nil {
				t.Fatal(err)
			}
			c.Unread(p)
			if c.Quiet() {
				t.Error("bytes are there, and it is quiet")
			}
			if got, err := read(c); got != "abcdef" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
		})
	}
}

func TestAFullSocketMakesWritesWait(t *testing.T) {
	for _, size := range []int{smallWrite, 4 * smallWrite} {
		c, far := couple(t)
		piece := bytes.Repeat([]byte("x"), size)
		_ = c.SetWriteDeadline(time.Now().Add(soon))
		sent := 0
		for {
			n, err := c.Write(piece)
			sent += n
			if err == nil {
				continue
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(err.Error(), "write tcp ") {
				t.Errorf("pieces of %d: the write ended with %v", size, err)
			}
			break
		}
		_ = c.CloseWrite()
		got, err := io.Copy(io.Discard, far)
		if err != nil || got != int64(sent) {
			t.Errorf("pieces of %d: %d of %d bytes came, %v", size, got, sent, err)
		}
	}
}

func TestCopyingByTheKernelMindsTheDeadline(t *testing.T) {
	c, far := couple(t)
	onto, end := couple(t)
	_ = c.SetReadDeadline(time.Now().Add(soon))
	_, _ = far.Write([]byte("abc"))
	n, err := io.Copy(onto, c)
	if n != 3 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("copied %d, %v", n, err)
	}
	p := make([]byte, 3)
	if _, err := io.ReadFull(end, p); err != nil || string(p) != "abc" {
		t.Errorf("%q came, %v", p, err)
	}
}

func TestReadsAndWritesAllocateNothing(t *testing.T) {
	c, far := couple(t)
	p, q := make([]byte, 64), make([]byte, 64)
	allocs := testing.AllocsPerRun(100, func() {
		_ = c.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := far.Write(q); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(p); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(p); err != nil || !c.Quiet() {
			t.Fatal(err)
		}
		if _, err := far.Read(q); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}
