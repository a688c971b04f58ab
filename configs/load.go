package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

const envPrefix = "SLUICE_"

// flagOrigin begins what is said of a flag's value.
const flagOrigin = "flag --"

// FlagError is a fault of a value that a flag gave: of the command line, not
// of the configuration.
type FlagError struct{ err error }

func (e FlagError) Error() string { return e.err.Error() }
func (e FlagError) Unwrap() error { return e.err }

// maxFileBytes is the size of the largest file that is read.
const maxFileBytes = 1 << 20

// Load reads the settings: flags over environment over the file at path over
// Default. path may be "" and flags nil. The error holds every fault, each
// with its origin and its key.
func Load(path string, flags *pflag.FlagSet) (Config, error) {
	l := &loader{path: path, flags: flags, v: viper.New(), settings: settings()}
	return l.load()
}

// AddFlags adds a flag for every setting but secrets, which a process list
// would show, and what only a file can hold.
func AddFlags(flags *pflag.FlagSet) {
	def := Default()
	for _, s := range settings() {
		if s.secret() || s.structured() {
			continue
		}
		usage := "see configs/sluice.yaml"
		if v := fmt.Sprint(s.shown(&def)); v != "" && v != "[]" {
			usage = fmt.Sprintf("default %s", v)
		}
		flags.String(s.key, "", usage)
	}
}

// loader reads one Config.
type loader struct {
	path     string
	flags    *pflag.FlagSet
	v        *viper.Viper
	settings []setting
	errs     []error
	broken   []string // keys whose values could not be read
}

func (l *loader) load() (Config, error) {
	c := Default()
	if !l.readFile() {
		return Config{}, errors.Join(l.errs...)
	}
	l.readEnvironment()
	l.bindFlags()
	for _, s := range l.settings {
		if !l.v.IsSet(s.key) {
			continue
		}
		if err := s.set(&c, l.v.Get(s.key)); err != nil {
			l.fault(s.key, err.Error())
			l.broken = append(l.broken, s.key)
		}
	}
	if err := c.readToken(); err != nil {
		l.fault("admin.token_file", err.Error())
	}
	if c.Name == "" {
		c.Name = defaultName(c.Listen)
	}
	for _, f := range c.faults() {
		if !l.follows(f) {
			l.fault(f.key, f.message)
		}
	}
	if len(l.errs) > 0 {
		return Config{}, errors.Join(l.errs...)
	}
	return c, nil
}

// follows says whether f may be there only because a value that it is about
// could not be read.
func (l *loader) follows(f fault) bool {
	return slices.ContainsFunc(l.broken, func(key string) bool {
		return f.key == key || strings.HasPrefix(f.key, key+".") || strings.Contains(f.message, key)
	})
}

// fault adds a fault of key, said where the value came from.
func (l *loader) fault(key, message string) {
	origin := l.origin(key)
	err := fmt.Errorf("%s%s: %s", origin, key, message)
	if strings.HasPrefix(origin, flagOrigin) {
		err = FlagError{err}
	}
	l.errs = append(l.errs, err)
}

// origin says which of the layers gave the value of key, which may name an
// element ("tls.certificates[0]") or a section ("etcd.tls"). Where none did,
// the fault is that it is missing beside others of its section.
func (l *loader) origin(key string) string {
	key, _, _ = strings.Cut(key, "[")
	for {
		for _, s := range l.settings {
			if s.key != key && !strings.HasPrefix(s.key, key+".") {
				continue
			}
			if l.flags != nil && l.flags.Changed(s.key) {
				return flagOrigin + s.key + ": "
			}
			if _, ok := os.LookupEnv(s.env()); ok && !s.structured() {
				return "environment " + s.env() + ": "
			}
			if l.v.InConfig(s.key) {
				return l.path + ": "
			}
		}
		dot := strings.LastIndexByte(key, '.')
		if dot < 0 {
			return ""
		}
		key = key[:dot]
	}
}

// readFile reads the file and merges it into viper. The file is walked first,
// because viper knows neither which keys exist nor where one stands. It says
// whether the file could be read; faults of single keys do not keep it from
// that.
func (l *loader) readFile() bool {
	if l.path == "" {
		return true
	}
	fail := func(format string, args ...any) bool {
		l.errs = append(l.errs, fmt.Errorf(l.path+": "+format, args...))
		return false
	}
	data, err := readBounded(l.path)
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("read the configuration: %w", err))
		return false
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return true // an empty file sets nothing
	} else if err != nil {
		return fail("is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return fail("holds more than one YAML document")
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fail("is not a mapping of keys to values")
	}
	l.walk(root, "")
	var m map[string]any
	if err := root.Decode(&m); err != nil {
		return fail("cannot be read") // the cause can quote a value
	}
	if err := l.v.MergeConfigMap(m); err != nil {
		return fail("cannot be read")
	}
	return true
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFileBytes)
	}
	return data, err
}

// walk finds keys of a mapping that are unknown, twice there or without a
// value, and takes them out of it.
func (l *loader) walk(n *yaml.Node, path string) {
	seen := map[string]bool{}
	var good []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := path + name.Value
		ok := true
		fail := func(message string) {
			ok = false
			l.errs = append(l.errs, fmt.Errorf("%s:%d: %s: %s", l.path, name.Line, key, message))
			l.broken = append(l.broken, key)
		}
		isSection := slices.ContainsFunc(l.settings, func(s setting) bool { return strings.HasPrefix(s.key, key+".") })
		isKey := slices.ContainsFunc(l.settings, func(s setting) bool { return s.key == key })
		switch {
		case name.Kind != yaml.ScalarNode || name.Tag == "!!merge" || value.Kind == yaml.AliasNode:
			fail("aliases and merge keys are not accepted")
		case seen[key]:
			fail("is given twice")
		case value.Tag == "!!null":
			fail("has no value; give one, or leave the key out")
		case isSection && value.Kind != yaml.MappingNode:
			fail("is a section; want keys below it")
		case isSection:
			l.walk(value, key+".")
		case !isKey:
			fail("is not a key here; accepted are " + strings.Join(l.below(path), ", "))
		}
		seen[key] = true
		if ok {
			good = append(good, name, value)
		}
	}
	n.Content = good
}

// below lists the names that stand directly below path.
func (l *loader) below(path string) []string {
	var names []string
	for _, s := range l.settings {
		rest, ok := strings.CutPrefix(s.key, path)
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// kubernetesEnv matches what Kubernetes puts into the environment of every
// pod beside a Service whose name begins with "sluice".
var kubernetesEnv = regexp.MustCompile(`^SLUICE(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)$`)

// readEnvironment binds every variable and finds unknown ones.
func (l *loader) readEnvironment() {
	l.v.AllowEmptyEnv(true) // SLUICE_CONSUL_ADDRESS= switches Consul off
	known := map[string]bool{}
	for _, s := range l.settings {
		if s.structured() {
			continue
		}
		known[s.env()] = true
		if err := l.v.BindEnv(s.key, s.env()); err != nil {
			l.fault(s.key, "cannot be bound to the environment")
		}
	}
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || known[name] || kubernetesEnv.MatchString(name) {
			continue
		}
		l.errs = append(l.errs, fmt.Errorf("environment %s: is not a setting; a key such as etcd.endpoints is set by SLUICE_ETCD_ENDPOINTS", name))
	}
}

// bindFlags binds the flags that AddFlags added.
func (l *loader) bindFlags() {
	if l.flags == nil {
		return
	}
	for _, s := range l.settings {
		if f := l.flags.Lookup(s.key); f != nil && f.Changed {
			if err := l.v.BindPFlag(s.key, f); err != nil {
				l.fault(s.key, "cannot be bound to its flag")
			}
		}
	}
}

// readToken reads admin.token_file.
func (c *Config) readToken() error {
	if c.Admin.TokenFile == "" {
		return nil
	}
	if c.Admin.Token != "" {
		return errors.New("stands beside admin.token; give one of them")
	}
	data, err := readBounded(c.Admin.TokenFile)
	if err != nil {
		return err
	}
	c.Admin.Token = Secret(strings.TrimSpace(string(data)))
	if c.Admin.Token == "" {
		return fmt.Errorf("%s is empty", c.Admin.TokenFile)
	}
	return nil
}

// defaultName is the host's name and the port of the first listener.
func defaultName(l Listen) string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "sluice"
	}
	listen := l.HTTP
	if listen == "" {
		listen = l.HTTPS
	}
	if _, port, err := net.SplitHostPort(listen); err == nil && port != "" {
		return host + "-" + port
	}
	return host
}
