package routing

import (
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// Check judges documents as a gateway that starts with them would, and
// returns every problem, conflicts included, by key.
func Check(plugins Plugins, docs []*discovery.Document) []Problem {
	snap := discovery.Snapshot{States: map[string]discovery.State{
		discovery.SourceFile: {Documents: discovery.NewDocuments(docs...)},
	}}
	t := Build(nil, snap, Deps{Plugins: plugins, Pool: balance.NewPool(), Now: time.Now})
	return t.Problems()
}
