package main

import (
	"fmt"
	"net"
	"time"
)

// ports are the loopback ports that the demo listens on.
type ports struct {
	gateway, admin, consul, etcd       int // the usual ones, where free
	consulServer, consulSerf, etcdPeer int // any
}

// The ports that everything uses when told nothing.
const (
	gatewayPort = 8080
	adminPort   = 8081
	consulPort  = 8500
	etcdPort    = 2379
)

// usual says whether every command finds its server without being told.
func (p ports) usual() bool {
	return p.admin == adminPort && p.consul == consulPort && p.etcd == etcdPort
}

// choosePorts draws the ports. Each is held until all are drawn, so that no
// two are the same.
func choosePorts() (ports, error) {
	var p ports
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for _, c := range []struct {
		port  *int
		usual int
	}{
		{&p.gateway, gatewayPort}, {&p.admin, adminPort}, {&p.consul, consulPort}, {&p.etcd, etcdPort},
		{&p.consulServer, 0}, {&p.consulSerf, 0}, {&p.etcdPeer, 0},
	} {
		l, err := claim(c.usual)
		if err != nil {
			return p, fmt.Errorf("find a free port: %w", err)
		}
		held = append(held, l)
		*c.port = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

// claim listens on port, or on any free one if that is taken.
func claim(port int) (net.Listener, error) {
	if port != 0 && !answers(port) {
		if l, err := net.Listen("tcp", loopback(port)); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", loopback(0))
}

// answers says whether somebody serves the port. Some systems grant a
// loopback port although another process has it on every address.
func answers(port int) bool {
	c, err := net.DialTimeout("tcp", loopback(port), time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
