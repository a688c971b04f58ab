package testenv

import (
	"bufio"
	"fmt"
	"net"
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
