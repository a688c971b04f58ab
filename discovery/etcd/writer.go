package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Why etcd did not take a write. The error says more.
var (
	// ErrConflict: a key is not at the revision that a Change expects.
	ErrConflict = errors.New("changed meanwhile")
	// ErrTooLarge: etcd takes no transaction this big; a part of it was not
	// written either.
	ErrTooLarge = errors.New("too large for one etcd transaction")
	// ErrNoSpace: etcd's storage quota is used up.
	ErrNoSpace = errors.New("etcd has no space left")
	// ErrDenied: the user or the token was refused.
	ErrDenied = errors.New("etcd denied access")
)

// Entry is one key as it stood at a revision.
type Entry struct {
	Key   string
	Value []byte
	// Revision is the revision of this value's write, Created that of the
	// key's creation.
	Revision, Created int64
}

// Change is one write of a transaction.
type Change struct {
	Key   string
	Value []byte
	// Delete removes the key; Value is not used.
	Delete bool
	// Expect, when set, is the revision that the key must stand at; 0 is for
	// a key that must not exist.
	Expect *int64
}

// Writer reads and writes keys for commands and the admin API. It connects
// at the first call, and again after a refusal. Its methods may be called
// from any goroutine, take no longer than ctx allows (a login, five seconds
// more), and return errors that wrap one of the above where it applies.
type Writer struct {
	cfg Config
	log *slog.Logger

	mu     sync.Mutex
	client *clientv3.Client
	closed bool
}

// NewWriter returns a writer for cfg, which must be enabled. It does not wait
// for etcd.
func NewWriter(cfg Config, log *slog.Logger) (*Writer, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Writer{cfg: cfg, log: log}, nil
}

// Close ends the connection; calls that run fail.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.client != nil {
		_ = w.client.Close()
	}
}

// connect returns the client, made now if there is none.
func (w *Writer) connect() (*clientv3.Client, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errors.New("etcd writer is closed")
	}
	if w.client == nil {
		client, err := w.cfg.dial(context.Background())
		if err != nil {
			return nil, explain(err)
		}
		w.client = client
	}
	return w.client, nil
}

// drop lets go of a client whose user or token was refused: the password may
// have changed on disk.
func (w *Writer) drop(client *clientv3.Client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.client == client {
		w.client = nil
		_ = client.Close()
	}
}

// do runs one call and says in words why it failed.
func (w *Writer) do(call func(*clientv3.Client) error) error {
	client, err := w.connect()
	if err != nil {
		return err
	}
	if err = call(client); denied(err) {
		w.drop(client)
	}
	return explain(err)
}

// explain puts this package's errors around etcd's.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return fmt.Errorf("%w: the server's --max-txn-ops is lower than the number of keys: %w", ErrTooLarge, err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), strings.Contains(err.Error(), "larger than max"):
		return fmt.Errorf("%w: the server's --max-request-bytes is lower than the size of the documents: %w", ErrTooLarge, err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: compact and defragment it, then disarm its alarm: %w", ErrNoSpace, err)
	case denied(err):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	return err
}

// Put writes one key and returns the revision.
func (w *Writer) Put(ctx context.Context, key string, value []byte) (int64, error) {
	var revision int64
	err := w.do(func(c *clientv3.Client) error {
		res, err := c.Put(ctx, key, string(value))
		if err == nil {
			revision = res.Header.Revision
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("put %s: %w", key, err)
	}
	return revision, nil
}

// Txn makes all changes in one transaction, or none, and returns its
// revision. It is never split: what etcd does not take at once is
// ErrTooLarge. A condition that does not hold is ErrConflict.
func (w *Writer) Txn(ctx context.Context, changes []Change) (int64, error) {
	if len(changes) == 0 {
		return 0, errors.New("write to etcd: no changes")
	}
	var conditions []clientv3.Cmp
	var ops []clientv3.Op
	for _, c := range changes {
		if c.Expect != nil {
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(c.Key), "=", *c.Expect))
		}
		if c.Delete {
			ops = append(ops, clientv3.OpDelete(c.Key))
		} else {
			ops = append(ops, clientv3.OpPut(c.Key, string(c.Value)))
		}
	}
	var revision int64
	err := w.do(func(c *clientv3.Client) error {
		res, err := c.Txn(ctx).If(conditions...).Then(ops...).Commit()
		if err != nil {
			return err
		}
		if !res.Succeeded {
			return ErrConflict
		}
		revision = res.Header.Revision
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("write %d keys to etcd: %w", len(changes), err)
	}
	return revision, nil
}

// Get returns a key and whether it exists.
func (w *Writer) Get(ctx context.Context, key string) (Entry, bool, error) {
	e, ok, err := w.at(ctx, key, 0)
	if err != nil {
		return Entry{}, false, fmt.Errorf("get %s: %w", key, err)
	}
	return e, ok, nil
}

// at reads a key as it stood at a revision; 0 is now.
func (w *Writer) at(ctx context.Context, key string, revision int64) (e Entry, ok bool, err error) {
	err = w.do(func(c *clientv3.Client) error {
		res, err := c.Get(ctx, key, clientv3.WithRev(revision))
		if err == nil && len(res.Kvs) == 1 {
			e, ok = entry(res.Kvs[0]), true
		}
		return err
	})
	return e, ok, err
}

func entry(kv *mvccpb.KeyValue) Entry {
	return Entry{Key: string(kv.Key), Value: kv.Value, Revision: kv.ModRevision, Created: kv.CreateRevision}
}

// History returns the values of a key since its creation, the newest first,
// as far back as etcd was not compacted. At most limit are returned; 0 is
// all.
func (w *Writer) History(ctx context.Context, key string, limit int) ([]Entry, error) {
	var out []Entry
	for revision := int64(0); limit == 0 || len(out) < limit; {
		e, ok, err := w.at(ctx, key, revision)
		if errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("history of %s: %w", key, err)
		}
		if !ok {
			break
		}
		out = append(out, e)
		if e.Revision == e.Created {
			break
		}
		revision = e.Revision - 1
	}
	return out, nil
}

// List returns every key that starts with prefix, sorted, and the revision at
// which they all stood so.
func (w *Writer) List(ctx context.Context, prefix string) ([]Entry, int64, error) {
	var l listing
	err := w.do(func(c *clientv3.Client) (err error) {
		l, err = list(ctx, c, keyRange{start: prefix, end: clientv3.GetPrefixRangeEnd(prefix)})
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	out := make([]Entry, len(l.kvs))
	for i, kv := range l.kvs {
		out[i] = entry(kv)
	}
	return out, l.revision, nil
}
