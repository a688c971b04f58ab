package discoverytest

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheSinkRecordsWhatTheSourceSaysInOrder(t *testing.T) {
	source, sink := NewSource("fake"), &Sink{}
	gone, broken := errors.New("gone"), errors.New("broken")
	source.Report(discovery.State{Revision: 1})

	ended := make(chan error)
	go func() { ended <- source.Run(context.Background(), sink) }()
	sink.Await(t, time.Second, "what was said before Run", func(s discovery.State) bool { return s.Revision == 1 })
	source.Contact(nil)
	source.Contact(gone)
	source.Report(discovery.State{Revision: 2})
	next := sink.AwaitContact(t, time.Second, "a failed contact", 0, func(err error) bool { return err == gone })
	if next != 2 {
		t.Errorf("the failed contact is number %d", next)
	}
	source.Fail(broken)
	if err := <-ended; err != broken {
		t.Errorf("Run returned %v", err)
	}
	if states := sink.States(); len(states) != 2 || states[1].Revision != 2 {
		t.Errorf("states: %+v", states)
	}
	if contacts := sink.Contacts(); len(contacts) != 2 || contacts[0] != nil || contacts[1] != gone {
		t.Errorf("contacts: %v", contacts)
	}
}

func TestTheSourceEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := NewSource("fake").Run(ctx, &Sink{}); err != nil {
		t.Errorf("Run returned %v", err)
	}
}
