package testenv

import (
	"context"
	"crypto/tls"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// callTimeout bounds one call to a member that was just started again.
const callTimeout = 10 * time.Second

// store is the client behind Etcd's helpers.
type store struct {
	t      TB
	cfg    clientv3.Config
	client *clientv3.Client
}

func newStore(t TB, ca *CA, endpoint string) *store {
	t.Helper()
	s := &store{t: t, cfg: clientv3.Config{
		Endpoints: []string{endpoint},
		Logger:    zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
		})},
	}}
	if ca != nil {
		s.cfg.TLS = &tls.Config{RootCAs: ca.pool(), Certificates: []tls.Certificate{ca.clientPair(t)}}
	}
	s.connect()
	t.Cleanup(func() { _ = s.client.Close() })
	return s
}

func (s *store) connect() {
	s.t.Helper()
	client, err := clientv3.New(s.cfg)
	if err != nil {
		s.t.Fatalf("connect to etcd: %v", err)
		return
	}
	s.client = client
}

// do runs one call and repeats it while the server is away.
func (s *store) do(what string, call func(context.Context, *clientv3.Client) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	for {
		err := call(ctx, s.client)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("%s: %v", what, err)
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Put writes one key and returns the revision.
func (e *Etcd) Put(key, value string) int64 {
	e.t.Helper()
	return e.Apply(map[string]string{key: value})
}

// Delete removes keys in one transaction and returns the revision.
func (e *Etcd) Delete(keys ...string) int64 {
	e.t.Helper()
	return e.Apply(nil, keys...)
}

// Apply writes and removes keys in one transaction and returns its revision.
func (e *Etcd) Apply(put map[string]string, remove ...string) int64 {
	e.t.Helper()
	var ops []clientv3.Op
	for k, v := range put {
		ops = append(ops, clientv3.OpPut(k, v))
	}
	for _, k := range remove {
		ops = append(ops, clientv3.OpDelete(k))
	}
	var rev int64
	e.store.do("write to etcd", func(ctx context.Context, c *clientv3.Client) error {
		res, err := c.Txn(ctx).Then(ops...).Commit()
		if err == nil {
			rev = res.Header.Revision
		}
		return err
	})
	return rev
}

// Get returns the value of a key and whether it exists.
func (e *Etcd) Get(key string) (string, bool) {
	e.t.Helper()
	var value string
	var found bool
	e.store.do("read from etcd", func(ctx context.Context, c *clientv3.Client) error {
		res, err := c.Get(ctx, key)
		if err == nil && len(res.Kvs) == 1 {
			value, found = string(res.Kvs[0].Value), true
		}
		return err
	})
	return value, found
}

// Revision is the store's current revision.
func (e *Etcd) Revision() int64 {
	e.t.Helper()
	var rev int64
	e.store.do("read from etcd", func(ctx context.Context, c *clientv3.Client) error {
		res, err := c.Get(ctx, "/", clientv3.WithCountOnly())
		if err == nil {
			rev = res.Header.Revision
		}
		return err
	})
	return rev
}

// Compact drops all history before the current revision.
func (e *Etcd) Compact() {
	e.t.Helper()
	rev := e.Revision()
	e.store.do("compact etcd", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Compact(ctx, rev, clientv3.WithCompactPhysical())
		return err
	})
}

// EnableAuth turns authentication on, with the user root; the helpers go on
// as root.
func (e *Etcd) EnableAuth(rootPassword string) {
	e.t.Helper()
	e.addUser("root", rootPassword, "root")
	e.store.do("enable auth", func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.AuthEnable(ctx)
		return err
	})
	_ = e.store.client.Close()
	e.store.cfg.Username, e.store.cfg.Password = "root", rootPassword
	e.store.connect()
}

// AddUser adds a user who may read and write every key that starts with
// prefix.
func (e *Etcd) AddUser(name, password, prefix string) {
	e.t.Helper()
	role := "role-" + name
	e.store.do("add role "+role, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.RoleAdd(ctx, role)
		return err
	})
	e.store.do("grant to "+role, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.RoleGrantPermission(ctx, role, prefix, clientv3.GetPrefixRangeEnd(prefix),
			clientv3.PermissionType(clientv3.PermReadWrite))
		return err
	})
	e.addUser(name, password, role)
}

func (e *Etcd) addUser(name, password, role string) {
	e.t.Helper()
	if role == "root" {
		e.store.do("add role root", func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.RoleAdd(ctx, "root")
			return err
		})
	}
	e.store.do("add user "+name, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.UserAdd(ctx, name, password)
		return err
	})
	e.store.do("grant role to "+name, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.UserGrantRole(ctx, name, role)
		return err
	})
}

// SetPassword changes a user's password.
func (e *Etcd) SetPassword(name, password string) {
	e.t.Helper()
	e.store.do("change the password of "+name, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.UserChangePassword(ctx, name, password)
		return err
	})
}
