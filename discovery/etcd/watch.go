package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-gateway/sluice/discovery"
)

const (
	// probeEvery is how often the stream is asked for its progress.
	probeEvery = 2 * time.Second
	// silenceLimit is how long a stream may say nothing, progress included.
	silenceLimit = 5 * time.Second
	// resyncEvery is how often everything is listed whatever the watch said.
	resyncEvery = 60 * time.Second
	// reportShare bounds the time spent on reports in a storm of events: after
	// one that took t, the next comes no sooner than reportShare*t later, and
	// no event waits longer than reportWait.
	reportShare = 4
	reportWait  = 10 * time.Millisecond
)

// watcher is the watch of one session.
type watcher struct {
	*follower
	client *clientv3.Client
	// pending are events not yet in the picture, by key; nil is a deletion.
	pending map[string]*discovery.Document
	// upTo is the revision of the newest pending event.
	upTo int64
	// since is when the oldest pending event came.
	since time.Time
	// reportAt is the earliest moment of the next report.
	reportAt time.Time
}

// watch follows events from the picture's revision on, until the stream
// fails or can no longer be trusted.
func (f *follower) watch(ctx context.Context, client *clientv3.Client, stream *streamGuard) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	// Watch does not return before the server answers, which it may never do.
	opened := make(chan clientv3.WatchChan, 1)
	r, next := f.cfg.documentRange(), f.pic.revision+1
	beside.Go(func() {
		opened <- client.Watch(ctx, r.start, clientv3.WithRange(r.end), clientv3.WithRev(next),
			clientv3.WithPrevKV(), clientv3.WithProgressNotify(), clientv3.WithFragment())
	})
	beside.Go(func() { probe(ctx, client) })
	var events clientv3.WatchChan

	w := &watcher{follower: f, client: client, pending: map[string]*discovery.Document{}}
	// What arrived is made of whole revisions: it counts, whatever ends the watch.
	defer w.flush()
	silence := time.NewTimer(silenceLimit)
	defer silence.Stop()
	resync := time.NewTicker(resyncEvery)
	defer resync.Stop()
	flush := time.NewTimer(0)
	defer flush.Stop()
	grace := time.NewTimer(time.Until(f.pic.until))
	defer grace.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-stream.lost:
			return errors.New("the watch stream of etcd broke off")
		case <-silence.C:
			return fmt.Errorf("etcd did not answer for %s", silenceLimit)
		case events = <-opened:
		case res, ok := <-events:
			if !ok {
				return errors.New("the watch of etcd ended")
			}
			silence.Reset(silenceLimit)
			if err := w.take(ctx, res); err != nil {
				return err
			}
			if wait := time.Until(w.reportAt); wait > 0 {
				flush.Reset(wait)
			} else {
				w.flush()
			}
		case <-flush.C:
			w.flush()
		case <-grace.C:
			f.report(time.Now(), false)
		case <-resync.C:
			if err := w.resync(ctx); err != nil {
				return err
			}
		}
	}
}

// probe asks the stream of ctx for its progress until ctx ends. The answers
// come as watch responses.
func probe(ctx context.Context, client *clientv3.Client) {
	for sleep(ctx, probeEvery) {
		ask, cancel := context.WithTimeout(ctx, probeEvery)
		// A failure shows as silence.
		_ = client.RequestProgress(ask)
		cancel()
	}
}

// take handles one response: all events of one or more revisions, or none.
func (w *watcher) take(ctx context.Context, res clientv3.WatchResponse) error {
	if err := res.Err(); err != nil {
		if errors.Is(err, rpctypes.ErrCompacted) {
			return fmt.Errorf("%w: the history before revision %d was compacted", errListAgain, res.CompactRevision)
		}
		return fmt.Errorf("watch etcd: %w", err)
	}
	w.sink.Contact(nil)
	now := time.Now()
	for _, ev := range res.Events {
		if ev.Kv.ModRevision <= w.pic.revision {
			// A list in between was ahead of the stream.
			continue
		}
		d := w.cfg.document(ev.Kv)
		if len(w.pending) == 0 {
			w.since = now
		}
		w.upTo = ev.Kv.ModRevision
		if ev.Type == clientv3.EventTypeDelete {
			w.pending[d.Key] = nil
			continue
		}
		if d.Kind == discovery.KindActive && ev.PrevKv != nil {
			d.Previous = ev.PrevKv.Value
		}
		w.pending[d.Key] = d
	}
	return w.checkHistory(ctx, res)
}

// checkHistory looks again when the server speaks of another history. A
// member that lags behind answers with an older revision too; a list tells
// the two apart, since it is never older than what was acknowledged.
func (w *watcher) checkHistory(ctx context.Context, res clientv3.WatchResponse) error {
	if res.Header.ClusterId == 0 {
		return nil
	}
	if w.pic.wentBack(res.Header.ClusterId, res.Header.Revision) {
		return w.resync(ctx)
	}
	w.seen.Store(max(w.seen.Load(), res.Header.Revision))
	return nil
}

// resync lists everything beside the running watch.
func (w *watcher) resync(ctx context.Context) error {
	w.flush()
	wentBack, err := w.relist(ctx, w.client)
	if err != nil {
		return err
	}
	if wentBack {
		return fmt.Errorf("%w: the store has another history", errListAgain)
	}
	return nil
}

// flush brings the pending events into the picture and reports it.
func (w *watcher) flush() {
	if len(w.pending) == 0 {
		return
	}
	start := time.Now()
	w.pic.change(w.upTo, w.pending)
	clear(w.pending)
	w.report(w.since, false)
	end := time.Now()
	w.reportAt = end.Add(min(reportShare*end.Sub(start), reportWait))
}
