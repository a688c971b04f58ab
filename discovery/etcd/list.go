package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/discovery"
)

// pageSize bounds one answer; all pages are read at the revision of the first.
const pageSize = 1000

// keyRange is [start, end) in the order of bytes.
type keyRange struct{ start, end string }

// documentRange spans the folders of documents, and all that is put beside
// them by mistake, up to status, which sorts behind them and changes far more
// often. What sorts behind status is not looked at: it would take a second
// watch.
func (c Config) documentRange() keyRange {
	return keyRange{start: c.prefix() + "/", end: c.statusPrefix()}
}

// listing is everything in a range at one revision of one cluster.
type listing struct {
	cluster  uint64
	revision int64
	kvs      []*mvccpb.KeyValue
}

// list reads r with linearizable reads: nothing acknowledged before the call
// is missing.
func list(ctx context.Context, kv clientv3.KV, r keyRange) (listing, error) {
	var out listing
	opts := []clientv3.OpOption{clientv3.WithRange(r.end), clientv3.WithLimit(pageSize)}
	for from := r.start; ; {
		res, err := get(ctx, kv, from, opts...)
		if err != nil {
			return listing{}, fmt.Errorf("list %s: %w", r.start, err)
		}
		if out.revision == 0 {
			out.cluster, out.revision = res.Header.ClusterId, res.Header.Revision
			opts = append(opts, clientv3.WithRev(out.revision))
		}
		out.kvs = append(out.kvs, res.Kvs...)
		if !res.More || len(res.Kvs) == 0 {
			return out, nil
		}
		from = string(res.Kvs[len(res.Kvs)-1].Key) + "\x00"
	}
}

func get(ctx context.Context, kv clientv3.KV, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return kv.Get(ctx, key, opts...)
}

// document reads the key of kv, which lies below the prefix. One whose folder
// holds no documents, or that is deeper than a name or has none, is handed on
// too: routing tells its writer what is wrong with it. The value of a key in a
// folder unknown here is not kept: it may be anything.
func (c Config) document(kv *mvccpb.KeyValue) *discovery.Document {
	rest := strings.TrimPrefix(string(kv.Key), c.prefix()+"/")
	kind, name, ok := strings.Cut(rest, "/")
	if !ok {
		kind, name = "", rest
	}
	d := &discovery.Document{
		Key: string(kv.Key), Kind: discovery.Kind(kind), Name: name, Source: discovery.SourceEtcd,
		Revision: kv.ModRevision, Created: kv.CreateRevision,
	}
	if slices.Contains(discovery.Kinds(), d.Kind) {
		d.Value = kv.Value
	}
	return d
}

// fillPrevious asks for the value before this one of each active document
// that was written more than once. A value that was compacted stays unknown.
func fillPrevious(ctx context.Context, kv clientv3.KV, docs []*discovery.Document) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, d := range docs {
		if d.Kind != discovery.KindActive || d.Created == d.Revision {
			continue
		}
		g.Go(func() error {
			res, err := get(ctx, kv, d.Key, clientv3.WithRev(d.Revision-1))
			if errors.Is(err, rpctypes.ErrCompacted) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read the value of %s before revision %d: %w", d.Key, d.Revision, err)
			}
			if len(res.Kvs) == 1 {
				d.Previous = res.Kvs[0].Value
			}
			return nil
		})
	}
	return g.Wait()
}
