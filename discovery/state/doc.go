// Package state keeps the last good state of each source on disk
// (state_dir), for a cold start while a registry is away.
//
// A file is one line, naming the format, what the file is for, when it was
// saved and the SHA-256 of the rest, and then JSON. It is written beside its
// place, synced and renamed, so that a crash leaves the old file or the new
// one. A file that is damaged is reported, set aside and not used.
//
// What is loaded is marked as Stored.
package state
