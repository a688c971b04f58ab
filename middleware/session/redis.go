package session

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/middleware/store"
)

// unlock deletes a lock that is still ours.
var unlock = redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`)

// Redis keeps sessions in a Redis that gateways share (6.2 or later, for
// GETEX): one round trip for a request. Each key stands for itself, so that a
// cluster spreads them.
type Redis struct {
	store  *store.Redis
	prefix string
}

// NewRedis makes a store of the sessions of one client of one issuer.
func NewRedis(s *store.Redis, namespace string) *Redis {
	return &Redis{store: s, prefix: "sluice:session:" + namespace + ":"}
}

func (r *Redis) key(id string) string { return r.prefix + "id:" + id }

// indexes are the sorted sets that lead from what an issuer names to ids; the
// score is when the session ends.
func (r *Redis) indexes(s *Session) []string {
	keys := []string{r.prefix + "sub:" + s.Subject}
	if s.SID != "" {
		keys = append(keys, r.prefix+"sid:"+s.SID)
	}
	return keys
}

// Get implements Store.
func (r *Redis) Get(ctx context.Context, id string, idle time.Duration) (data []byte, err error) {
	err = r.store.Do(ctx, func(ctx context.Context, c redis.UniversalClient) (err error) {
		data, err = c.GetEx(ctx, r.key(id), idle).Bytes()
		return err
	})
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return data, err
}

// Put implements Store.
func (r *Redis) Put(ctx context.Context, id string, s *Session, data []byte, idle time.Duration) error {
	now := strconv.FormatInt(time.Now().Unix(), 10)
	return r.store.Do(ctx, func(ctx context.Context, c redis.UniversalClient) error {
		_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range r.indexes(s) {
				p.ZRemRangeByScore(ctx, key, "-inf", now)
				p.ZAdd(ctx, key, redis.Z{Score: float64(s.Ends.Unix()), Member: id})
				p.ExpireAt(ctx, key, s.Ends)
			}
			p.Set(ctx, r.key(id), data, idle)
			return nil
		})
		return err
	})
}

// Replace implements Store.
func (r *Redis) Replace(ctx context.Context, id string, data []byte, idle time.Duration) (bool, error) {
	was := false
	err := r.store.Do(ctx, func(ctx context.Context, c redis.UniversalClient) error {
		err := c.SetArgs(ctx, r.key(id), data, redis.SetArgs{Mode: "XX", TTL: idle}).Err()
		was = err == nil
		return err
	})
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return was, err
}

// Delete implements Store.
func (r *Redis) Delete(ctx context.Context, id string) error {
	return r.store.Do(ctx, func(ctx context.Context, c redis.UniversalClient) error {
		return c.Del(ctx, r.key(id)).Err()
	})
}

// End implements Store.
func (r *Redis) End(ctx context.Context, sid, subject string) error {
	index := r.prefix + "sid:" + sid
	if sid == "" {
		index = r.prefix + "sub:" + subject
	}
	var ids []string
	err := r.store.Do(ctx, func(ctx context.Context, c redis.UniversalClient) (err error) {
		ids, err = c.ZRange(ctx, index, 0, -1).Result()
		return err
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	return r.store.Do(ctx, func(ctx context.Context, c redis.UniversalClient) error {
		_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, id := range ids {
				p.Del(ctx, r.key(id))
			}
			p.Del(ctx, index)
			return nil
		})
		return err
	})
}

// Once implements Store.
func (r *Redis) Once(ctx context.Context, name string, ttl time.Duration) (first bool, err error) {
	err = r.store.Do(ctx, func(ctx context.Context, c redis.UniversalClient) (err error) {
		first, err = setNX(ctx, c, r.prefix+"once:"+name, "1", ttl)
		return err
	})
	return first, err
}

// Lock implements Store.
func (r *Redis) Lock(ctx context.Context, id string, ttl time.Duration) (func(), bool, error) {
	key, mine, got := r.prefix+"lock:"+id, rand.Text(), false
	err := r.store.Do(ctx, func(ctx context.Context, c redis.UniversalClient) (err error) {
		got, err = setNX(ctx, c, key, mine, ttl)
		return err
	})
	if err != nil || !got {
		return nil, false, err
	}
	return func() {
		// Where this fails the lock ends by itself.
		_ = r.store.Do(ctx, func(ctx context.Context, c redis.UniversalClient) error {
			return unlock.Run(ctx, c, []string{key}, mine).Err()
		})
	}, true, nil
}

func setNX(ctx context.Context, c redis.UniversalClient, key, value string, ttl time.Duration) (bool, error) {
	err := c.SetArgs(ctx, key, value, redis.SetArgs{Mode: "NX", TTL: ttl}).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, err
}
