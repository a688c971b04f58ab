package passwords

import "time"

// waitAtMost bounds how long a request waits to have its password checked.
const waitAtMost = 2 * time.Second

// Gate bounds how many passwords are checked at a time and how many wait, so
// that strangers who guess cannot take the whole machine. Safe for concurrent
// use.
type Gate struct{ running, waiting chan struct{} }

// NewGate lets running checks pass at a time, while at most waiting wait.
func NewGate(running, waiting int) *Gate {
	return &Gate{running: make(chan struct{}, running), waiting: make(chan struct{}, waiting)}
}

// enter returns false where there is no place in time.
func (g *Gate) enter() bool {
	select {
	case g.running <- struct{}{}:
		return true
	default:
	}
	select {
	case g.waiting <- struct{}{}:
		defer func() { <-g.waiting }()
	default:
		return false
	}
	timer := time.NewTimer(waitAtMost)
	defer timer.Stop()
	select {
	case g.running <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

func (g *Gate) leave() { <-g.running }
