// Package discoverytest holds the fakes of discovery: a Source that a test
// drives, and a Sink that records what a source says.
package discoverytest
