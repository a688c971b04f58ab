package routing

import "testing"

func TestTheEngineIsStdUnlessTheServiceSaysOtherwise(t *testing.T) {
	for want, specs := range map[string][]*ServiceSpec{
		EngineStd:  {nil, {}, {Upstream: &UpstreamSpec{}}, {Upstream: &UpstreamSpec{Engine: EngineStd}}},
		EngineFast: {{Upstream: &UpstreamSpec{Engine: EngineFast}}},
	} {
		for _, spec := range specs {
			s := &Service{}
			if s.policies(spec, Defaults{}); s.Upstream.Engine != want {
				t.Errorf("%+v got %q, want %q", spec, s.Upstream.Engine, want)
			}
		}
	}
}

func TestTheBoundsOfADocumentAreThoseOfItsPicker(t *testing.T) {
	p := policyOf(&ServiceSpec{MaxInFlight: 3, MaxInFlightPerInstance: 2})
	if p.MaxInFlight != 3 || p.MaxPerEndpoint != 2 {
		t.Errorf("got %+v", p)
	}
}
