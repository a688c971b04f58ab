package routing

import "testing"

func TestTheEngineIsFastUnlessTheServiceSaysOtherwise(t *testing.T) {
	for want, specs := range map[string][]*ServiceSpec{
		EngineFast: {nil, {}, {Upstream: &UpstreamSpec{}}, {Upstream: &UpstreamSpec{Engine: EngineFast}}},
		EngineStd:  {{Upstream: &UpstreamSpec{Engine: EngineStd}}},
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
