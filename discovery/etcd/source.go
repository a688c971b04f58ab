package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/sluice-gateway/sluice/discovery"
)

// Source follows the documents under one prefix. It implements
// discovery.Source.
type Source struct {
	cfg  Config
	log  *slog.Logger
	seen atomic.Int64
}

// New returns a source for cfg, which must be enabled. It reads the files
// that cfg names, and does not wait for etcd.
func New(cfg Config, log *slog.Logger) (*Source, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Source{cfg: cfg, log: log.With("source", discovery.SourceEtcd)}, nil
}

// check finds what no retry mends.
func (c Config) check() error {
	if !c.Enabled() {
		return errors.New("etcd.endpoints: is empty")
	}
	if err := c.Validate(); err != nil {
		return err
	}
	if _, err := c.password(); err != nil {
		return err
	}
	_, err := c.tls()
	return err
}

// Name is discovery.SourceEtcd.
func (s *Source) Name() string { return discovery.SourceEtcd }

// Revision is the newest revision of the store that the source has heard of,
// keys outside the prefix included; 0 before the first answer. It may be
// called from any goroutine.
func (s *Source) Revision() int64 { return s.seen.Load() }

// Run follows the store until ctx ends. See discovery.Source.
func (s *Source) Run(ctx context.Context, sink discovery.Sink) error {
	f := &follower{Source: s, sink: sink}
	var wait retry
	for away := false; ; {
		start := time.Now()
		connected, err := f.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		err = s.cfg.advise(err)
		away = away && !connected
		if connected && time.Since(start) > steady {
			wait.reset()
		}
		switch {
		case errors.Is(err, errListAgain):
			s.log.Info("etcd's documents are listed again", "reason", err)
		case away:
			sink.Contact(err)
			s.log.Debug("etcd is still away", "error", err)
		default:
			sink.Contact(err)
			s.log.Warn("etcd is away; what is known serves on", "error", err)
			away = true
		}
		if !sleep(ctx, wait.next(err)) {
			return nil
		}
	}
}

// steady is how long a session must last for the next failure to count as the
// first: one that breaks at once, again and again, must not loop hot.
const steady = time.Second

// errListAgain ends a session because its watch cannot go on, though etcd
// answers.
var errListAgain = errors.New("watch cannot go on")

// follower is one Run: the picture, and how it is reported.
type follower struct {
	*Source
	sink discovery.Sink
	pic  picture
}

// session is one connection: a list, then a watch until something fails. It
// reports whether the list succeeded, and never returns without an error.
func (f *follower) session(ctx context.Context) (connected bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := &streamGuard{lost: make(chan struct{})}
	client, err := f.cfg.dial(ctx, grpc.WithChainStreamInterceptor(stream.intercept))
	if err != nil {
		return false, fmt.Errorf("connect to etcd: %w", err)
	}
	defer client.Close()
	// The watch ends before the client it runs on is closed.
	defer cancel()

	if _, err := f.relist(ctx, client); err != nil {
		return false, err
	}
	f.log.Info("etcd answers", "revision", f.pic.revision, "documents", f.pic.docs.Len())
	return true, f.watch(ctx, client, stream)
}

// relist reads everything and reports what changed. It says whether the
// store's history is another one than before.
func (f *follower) relist(ctx context.Context, client clientv3.KV) (wentBack bool, err error) {
	l, err := list(ctx, client, f.cfg.documentRange())
	if err != nil {
		return false, err
	}
	seen := time.Now()
	docs := make([]*discovery.Document, 0, len(l.kvs))
	var fresh []*discovery.Document
	for _, kv := range l.kvs {
		d := f.cfg.document(kv)
		docs = append(docs, d)
		if _, held := f.pic.reuse(d); !held {
			fresh = append(fresh, d)
		}
	}
	if err := fillPrevious(ctx, client, fresh); err != nil {
		return false, err
	}
	first := !f.pic.known
	wentBack = f.pic.wentBack(l.cluster, l.revision)
	if wentBack {
		f.log.Error("etcd lost or replaced its data: its history is not the one known here",
			"revision_known", f.pic.revision, "revision_now", l.revision, "cluster_changed", l.cluster != f.pic.cluster)
	}
	if f.pic.adopt(l.cluster, l.revision, docs, seen) {
		f.log.Error("etcd came back empty; the documents known before serve on",
			"documents", f.pic.lost.Len(), "for", lossGrace)
	}
	f.seen.Store(l.revision)
	f.sink.Contact(nil)
	f.report(seen, first || wentBack)
	return wentBack, nil
}

// report hands over the state when it changed, or always.
func (f *follower) report(seen time.Time, always bool) {
	guarded := f.pic.lost != nil
	docs, changed := f.pic.show(time.Now())
	if guarded && f.pic.lost == nil {
		f.log.Error("etcd lost documents and they were not put back: now only what it holds serves",
			"documents", docs.Len())
	}
	if changed || always {
		f.sink.Report(discovery.State{Revision: f.pic.revision, Documents: docs, Seen: seen})
	}
}

// streamGuard notices that the client opens its watch stream again. The
// client resumes a broken watch by itself and in silence, even on a store
// whose data is gone.
type streamGuard struct {
	opened atomic.Int32
	lost   chan struct{}
}

const watchMethod = "/etcdserverpb.Watch/Watch"

func (g *streamGuard) intercept(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if method == watchMethod && g.opened.Add(1) == 2 {
		close(g.lost)
	}
	return streamer(ctx, desc, cc, method, opts...)
}
