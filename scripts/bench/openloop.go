package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/scripts/load"
)

// openLoop sends requests at a fixed rate over kept connections, whatever the
// answers do. scripts/load does the same for drills; this one costs a tenth
// of it, so that on a small machine the figures are the proxy's and not its
// own.
type openLoop struct {
	addr        string
	rate        int // requests per second
	connections int
	request     func(n int) []byte
}

// lane is one of its connections. Between requests it waits for an answer
// that nobody sent.
type lane struct {
	conn  net.Conn
	began atomic.Int64 // when the request under way was sent, since the epoch of the run
}

// firstAnswers is how many answers of a connection do not count.
const firstAnswers = 2

// run sends for d and returns how long each request took, from when it was
// sent, or from when every connection was busy, to the end of its answer. The
// first ones of each connection are left out.
func (o openLoop) run(d time.Duration) ([]time.Duration, error) {
	lanes, err := o.dial()
	hangUp := func() {
		for _, l := range lanes {
			_ = l.conn.Close()
		}
	}
	if err != nil {
		hangUp()
		return nil, err
	}
	epoch := time.Now()
	idle := make(chan *lane, o.connections)
	broken := make(chan error, o.connections)
	times := make([][]time.Duration, len(lanes))
	var readers sync.WaitGroup
	for i, l := range lanes {
		idle <- l
		readers.Go(func() {
			var err error
			if times[i], err = l.read(epoch, idle); err != nil {
				broken <- err
			}
		})
	}
	err = o.send(epoch, d, idle, broken)
	hangUp()
	readers.Wait()
	for i := range times {
		times[i] = times[i][min(firstAnswers, len(times[i])):]
	}
	return slices.Concat(times...), err
}

func (o openLoop) dial() (lanes []*lane, err error) {
	for range o.connections {
		conn, err := net.Dial("tcp", o.addr)
		if err != nil {
			return lanes, err
		}
		lanes = append(lanes, &lane{conn: conn})
	}
	return lanes, nil
}

// send keeps to the schedule on a thread of its own, then waits until every
// answer has come.
func (o openLoop) send(epoch time.Time, d time.Duration, idle <-chan *lane, broken <-chan error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	late := time.After(d + patience)
	begin := time.Since(epoch)
	for n := range int(d.Seconds() * float64(o.rate)) {
		due := begin + time.Duration(n)*time.Second/time.Duration(o.rate)
		for wait := due - time.Since(epoch); wait > 0; wait = due - time.Since(epoch) {
			pause(wait)
		}
		began := time.Since(epoch)
		select {
		case l := <-idle:
			l.began.Store(int64(began))
			if _, err := l.conn.Write(o.request(n)); err != nil {
				return fmt.Errorf("send: %w", err)
			}
		case err := <-broken:
			return err
		case <-late:
			return errors.New("the answers did not come")
		}
	}
	for range o.connections {
		select {
		case <-idle:
		case err := <-broken:
			return err
		case <-late:
			return errors.New("the last answers did not come")
		}
	}
	return nil
}

// read reads answers until the connection is closed.
func (l *lane) read(epoch time.Time, idle chan<- *lane) (took []time.Duration, err error) {
	in := bufio.NewReader(l.conn)
	for {
		if _, err := in.Peek(1); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return took, nil
			}
			return took, fmt.Errorf("await an answer: %w", err)
		}
		if err := readAnswer(in); err != nil {
			return took, err
		}
		took = append(took, time.Since(epoch)-time.Duration(l.began.Load()))
		idle <- l
	}
}

// readAnswer reads one whole answer; it is to be a 200.
func readAnswer(in *bufio.Reader) error {
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("read an answer's body: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("an answer is %s", resp.Status)
	}
	return nil
}

// get is a GET of path from any host.
func get(path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", path)
}

// spreads are the median and the 99th percentile of each round.
type spreads struct{ p50, p99 []time.Duration }

func (s *spreads) add(took []time.Duration) {
	s.p50 = append(s.p50, load.Percentile(took, 50))
	s.p99 = append(s.p99, load.Percentile(took, 99))
}

// medians are the medians of the rounds.
func (s *spreads) medians() (p50, p99 time.Duration) {
	return middle(s.p50), middle(s.p99)
}

func middle(ds []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(ds))
	return sorted[len(sorted)/2]
}
