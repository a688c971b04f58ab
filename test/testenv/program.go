package testenv

import "net"

// Program is a process that listens on one address.
type Program struct {
	*Server
	// Addr is host:port of its listener.
	Addr string
}

// StartProgram runs a program until the test ends. args is asked for its
// arguments once its address is chosen; env is added to its environment. It
// accepts connections when StartProgram returns.
func StartProgram(t TB, name, binary string, env []string, args func(addr string) []string) *Program {
	t.Helper()
	p := &Program{}
	p.Server = launch(t, name, binary, func(s *Server) {
		p.Addr = loopback(FreePort(t))
		s.args, s.env = args(p.Addr), env
		s.ready = func() error {
			conn, err := net.Dial("tcp", p.Addr)
			if err != nil {
				return err
			}
			return conn.Close()
		}
	})
	return p
}
