package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// errUsage says that the command line is wrong; what is wrong was printed.
var errUsage = errors.New("usage")

// Kinds of health check that the service asks the agent for.
const (
	checkHTTP = "http" // the agent asks /healthz
	checkTTL  = "ttl"  // the service reports to the agent
	checkNone = "none" // passing for as long as it is registered
)

// options is the command line.
type options struct {
	name, id, listen string
	consul, token    string
	tags             []string
	meta             map[string]string
	weight           int
	check            string
	interval         time.Duration
	delay, linger    time.Duration
}

// colour is the colour among the tags, or "".
func (o options) colour() string {
	for _, t := range o.tags {
		if t == "blue" || t == "green" {
			return t
		}
	}
	return ""
}

func parseOptions(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	o := options{meta: map[string]string{}, token: getenv("CONSUL_HTTP_TOKEN")}
	f := flag.NewFlagSet("demo-service", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.name, "name", "demo", "the service's `name` in Consul")
	f.StringVar(&o.id, "id", "", "the instance's `id`; NAME-PORT if empty")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "`host:port` to serve on; port 0 takes a free one")
	f.StringVar(&o.consul, "consul", cmp.Or(getenv("CONSUL_HTTP_ADDR"), "http://127.0.0.1:8500"),
		"`URL` of the Consul agent; empty registers nowhere")
	f.Func("tags", "a `tag` of the instance; may be given many times", func(s string) error {
		o.tags = append(o.tags, s)
		return nil
	})
	f.Func("meta", "a `key=value` of the instance's metadata; may be given many times", func(s string) error {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return errors.New("want key=value")
		}
		o.meta[k] = v
		return nil
	})
	f.IntVar(&o.weight, "weight", 1, "the instance's share of requests among its peers")
	f.StringVar(&o.check, "check", checkHTTP, "health check: http, ttl or none")
	f.DurationVar(&o.interval, "interval", time.Second, "time between health checks; http takes 1s or more")
	f.DurationVar(&o.delay, "delay", 0, "wait before every answer")
	f.DurationVar(&o.linger, "linger", time.Second, "time to serve on after leaving Consul")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, errUsage // Parse has printed it
	}
	if err := o.complete(f.Args()); err != nil {
		fmt.Fprintln(stderr, "demo-service:", err)
		return o, errUsage
	}
	return o, nil
}

// complete checks what the flags alone cannot.
func (o *options) complete(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q", rest[0])
	}
	if o.name == "" {
		return errors.New("-name: must not be empty")
	}
	if !slices.Contains([]string{checkHTTP, checkTTL, checkNone}, o.check) {
		return fmt.Errorf("-check: %q is none of http, ttl, none", o.check)
	}
	if o.interval <= 0 || o.check == checkHTTP && o.interval < time.Second {
		return fmt.Errorf("-interval: %s is too short; an agent asks over http once a second at most", o.interval)
	}
	if o.weight < 0 {
		return fmt.Errorf("-weight: %d is negative", o.weight)
	}
	if o.delay < 0 || o.linger < 0 {
		return errors.New("-delay and -linger: must not be negative")
	}
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	if o.consul == "" {
		return nil
	}
	if !strings.Contains(o.consul, "://") {
		o.consul = "http://" + o.consul // as Consul's own tools read CONSUL_HTTP_ADDR
	}
	u, err := url.Parse(o.consul)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("-consul: %q is no http or https URL", o.consul)
	}
	o.consul = strings.TrimSuffix(o.consul, "/")
	return nil
}
