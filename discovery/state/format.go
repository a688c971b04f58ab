package state

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// format is the first word of every file; another number is another format.
const format = "sluice-state/1"

// seal puts the header line before body. The sum covers the rest of the
// header too, so that a file under another's name is damaged as well.
func seal(name string, saved time.Time, body []byte) []byte {
	at := saved.UTC().Format(time.RFC3339Nano)
	return append([]byte(fmt.Sprintf("%s %s %s %s\n", format, name, at, sum(name, at, body))), body...)
}

// unseal returns what seal was given, or what is wrong with data.
func unseal(name string, data []byte) (saved time.Time, body []byte, err error) {
	line, body, ok := bytes.Cut(data, []byte("\n"))
	words := strings.Split(string(line), " ")
	switch {
	case !ok || len(words) != 4:
		return saved, nil, fmt.Errorf("it has no header")
	case words[0] != format:
		return saved, nil, fmt.Errorf("its format is %.40q, not %s", words[0], format)
	case words[1] != name:
		return saved, nil, fmt.Errorf("it is the file of %.40q", words[1])
	case words[3] != sum(words[1], words[2], body):
		return saved, nil, fmt.Errorf("its checksum is wrong")
	}
	saved, err = time.Parse(time.RFC3339Nano, words[2])
	if err != nil {
		return saved, nil, fmt.Errorf("its time: %w", err)
	}
	return saved, body, nil
}

func sum(name, at string, body []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s\n", name, at)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// record is a discovery.State as JSON: a map cannot have a ServiceRef as its
// key there, and a set of documents has no exported fields.
type record struct {
	Revision int64 `json:"revision"`
	// Documents is absent where the source has none.
	Documents []*discovery.Document `json:"documents,omitzero"`
	Services  []service             `json:"services,omitzero"`
	Announced map[string][]string   `json:"announced,omitzero"`
}

type service struct {
	discovery.ServiceRef
	Instances []discovery.Instance `json:"instances"`
}

func encode(st discovery.State) ([]byte, error) {
	r := record{Revision: st.Revision, Announced: st.Announced}
	if st.Documents != nil {
		// Sorted gives an empty slice, not nil, for an empty set.
		r.Documents = st.Documents.Sorted()
	}
	if st.Instances != nil {
		r.Services = make([]service, 0, len(st.Instances))
	}
	for ref, instances := range st.Instances {
		r.Services = append(r.Services, service{ref, instances})
	}
	slices.SortFunc(r.Services, func(a, b service) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Datacenter, b.Datacenter))
	})
	return json.Marshal(r)
}

func decode(body []byte) (discovery.State, error) {
	var r record
	if err := json.Unmarshal(body, &r); err != nil {
		return discovery.State{}, err
	}
	st := discovery.State{Revision: r.Revision, Announced: r.Announced, Stored: true}
	if slices.Contains(r.Documents, nil) {
		return discovery.State{}, fmt.Errorf("a document is null")
	}
	if r.Documents != nil {
		st.Documents = discovery.NewDocuments(r.Documents...)
	}
	if r.Services != nil {
		st.Instances = make(map[discovery.ServiceRef][]discovery.Instance, len(r.Services))
	}
	for _, s := range r.Services {
		if s.Instances == nil {
			// "None is passing" is an empty slice.
			s.Instances = []discovery.Instance{}
		}
		st.Instances[s.ServiceRef] = s.Instances
	}
	return st, nil
}
