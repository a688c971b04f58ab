package discovery

// ServiceRef names one set of instances in a registry: a Consul service name,
// and the datacenter to ask ("" is the agent's own).
type ServiceRef struct {
	Name       string `json:"name"`
	Datacenter string `json:"datacenter,omitempty"`
}

// String gives "orders" or "orders@dc2", for logs and status.
func (r ServiceRef) String() string {
	if r.Datacenter == "" {
		return r.Name
	}
	return r.Name + "@" + r.Datacenter
}

// Instance is what a registry reports about one passing instance of a
// service. It is immutable once reported.
type Instance struct {
	// ID is unique within its ServiceRef and stable over re-registration:
	// for Consul "NODE/SERVICE-ID".
	ID string `json:"id"`
	// Address is host:port, an IPv6 host in brackets.
	Address string `json:"address"`
	// Weight is the share of picks among its peers; Consul Weights.Passing.
	// 0 means no new requests.
	Weight int `json:"weight"`
	// Tags are sorted.
	Tags []string `json:"tags,omitempty"`
	// Meta is the service's metadata; the node's is not included.
	Meta map[string]string `json:"meta,omitempty"`
	// Registered orders registrations of one registry: Consul CreateIndex.
	Registered uint64 `json:"registered,omitempty"`
}
