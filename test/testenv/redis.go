package testenv

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Redis is one Redis server that keeps nothing on disk.
type Redis struct {
	*Server
	// Addr is its host:port.
	Addr string
}

// StartRedis runs a Redis server until the test ends; args are added to its
// command line.
func StartRedis(t TB, args ...string) *Redis {
	t.Helper()
	dir := t.TempDir()
	r := &Redis{}
	r.Server = launch(t, "redis", "redis-server", func(s *Server) {
		port := FreePort(t)
		r.Addr = loopback(port)
		s.args = append([]string{
			"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir,
			"--save", "", "--appendonly", "no",
		}, args...)
		s.ready = func() error { return redisReady(r.Addr) }
	})
	return r
}

// redisReady pings; a server that asks for a password first is up as well.
func redisReady(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "+PONG") && !strings.HasPrefix(line, "-NOAUTH") {
		return fmt.Errorf("redis answered %q", line)
	}
	return nil
}

// StartSentinel runs a sentinel that knows primary by name and fails over to
// one of its replicas once primary has been silent for half a second.
func StartSentinel(t TB, name string, primary *Redis) *Redis {
	t.Helper()
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatalf("split %s: %v", primary.Addr, err)
	}
	path := filepath.Join(t.TempDir(), "sentinel.conf")
	r := &Redis{}
	r.Server = launch(t, "sentinel", "redis-server", func(s *Server) {
		own := FreePort(t)
		r.Addr = loopback(own)
		conf := fmt.Sprintf("bind 127.0.0.1\nport %d\ndir %s\nsentinel monitor %s %s %s 1\n"+
			"sentinel down-after-milliseconds %s 500\nsentinel failover-timeout %s 5000\n",
			own, filepath.Dir(path), name, host, port, name, name)
		if err := os.WriteFile(path, []byte(conf), 0o600); err != nil { // it rewrites it
			t.Fatalf("write the sentinel's configuration: %v", err)
		}
		s.args = []string{path, "--sentinel"}
		s.ready = func() error { return redisReady(r.Addr) }
	})
	return r
}
