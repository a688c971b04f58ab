package testenv

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
)

// Nginx is one nginx master with a worker for each processor.
type Nginx struct {
	*Server
	// Addr is host:port of its one listener.
	Addr string
}

// URL is the address of the listener.
func (n *Nginx) URL() string { return "http://" + n.Addr }

// StartNginx runs nginx until the test ends. http is the content of the http
// block around a server block that listens; server is the content of that
// block beside its listen line. It is ready once it answers with anything
// below 500.
func StartNginx(t TB, http, server string) *Nginx {
	t.Helper()
	dir := t.TempDir()
	n := &Nginx{}
	n.Server = launch(t, "nginx", "nginx", func(s *Server) {
		n.Addr = loopback(FreePort(t))
		path := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(path, []byte(nginxConfig(dir, n.Addr, http, server)), 0o600); err != nil {
			t.Fatalf("write the configuration of nginx: %v", err)
		}
		s.args = []string{"-c", path, "-p", dir, "-g", "daemon off;"}
		s.ready = func() error { return httpReady(n.URL()+"/", nginxAnswers) }
	})
	return n
}

func nginxAnswers(status int, _ string) error {
	if status >= http.StatusInternalServerError {
		return errors.New(http.StatusText(status))
	}
	return nil
}

// nginxConfig keeps every file that nginx writes in dir. Workers of a master
// that runs as root stay root, for dir belongs to whoever runs the test.
func nginxConfig(dir, addr, http, server string) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n"
	}
	return fmt.Sprintf(`%sworker_processes auto;
pid %[2]s/nginx.pid;
error_log stderr warn;
events { worker_connections 1024; }
http {
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	%[3]s
	server {
		listen %[4]s;
		%[5]s
	}
}
`, user, dir, http, addr, server)
}
