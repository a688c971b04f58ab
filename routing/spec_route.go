package routing

// RouteSpec is a route document as people write it, under
// /sluice/routes/NAME, in a file or in Consul tags. Exactly one of Service,
// Redirect and Respond is set.
type RouteSpec struct {
	// Hosts are exact names or wildcards of one leading label
	// ("*.example.com" matches any depth below example.com); none means any.
	Hosts []string `json:"hosts,omitempty"`
	// Path is Gin's syntax: /users/:id, /files/*path. Required.
	Path string `json:"path"`
	// Methods are upper case; none means any.
	Methods []string `json:"methods,omitempty"`
	// Headers and Query are predicates: a value to equal, or ~regexp (RE2).
	Headers map[string]string `json:"headers,omitempty"`
	Query   map[string]string `json:"query,omitempty"`
	// Priority breaks ties between routes of equal host and path; higher wins.
	Priority int `json:"priority,omitempty"`

	Service  string        `json:"service,omitempty"`
	Subset   string        `json:"subset,omitempty"`
	Redirect *RedirectSpec `json:"redirect,omitempty"`
	Respond  *RespondSpec  `json:"respond,omitempty"`

	StripPrefix string `json:"strip_prefix,omitempty"`
	Rewrite     string `json:"rewrite,omitempty"`
	// Host is "preserve" (default: the client's Host goes on), "service" (the
	// instance's own address) or a literal name.
	Host string `json:"host,omitempty"`
	// Timeout bounds the request from its head to the end of the response;
	// nil is the gateway's default, 0 none.
	Timeout *Duration `json:"timeout,omitempty"`
	// Retries is how many further attempts may follow the first; nil is the
	// service's or the gateway's default.
	Retries *int `json:"retries,omitempty"`
	// Plugins is plugin name to its configuration.
	Plugins map[string]map[string]any `json:"plugins,omitempty"`
	Labels  map[string]string         `json:"labels,omitempty"`
}

// RedirectSpec answers with a Location and no upstream.
type RedirectSpec struct {
	// To is an absolute URL or a path; :name and *name parameters of the
	// route's path are filled in.
	To string `json:"to"`
	// Code is 301, 302, 303, 307 or 308 (default 302).
	Code int `json:"code,omitempty"`
}

// RespondSpec answers by itself.
type RespondSpec struct {
	// Status is 200 to 599, default 200.
	Status  int               `json:"status,omitempty"`
	Body    string            `json:"body,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
}
