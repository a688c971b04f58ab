// Package etcd is the source that follows route documents in etcd, and the
// writer beside it: nothing else in the program talks to etcd.
//
// The source gets everything under its prefix at one revision, watches from
// the next one, and reports a new set of documents for each revision that
// changed one. It never reports half a revision: the server keeps the events
// of one transaction together, and the client joins fragments.
//
// Three things keep the picture true when the store misbehaves. The watch
// stream is asked for its progress every two seconds, so that a frozen or cut
// connection is noticed long before TCP would. A stream that broke is never
// resumed blindly: the documents are listed again and compared, which also
// notices a store that lost its data and went back in its revisions (a watch
// on a revision of the future stays silent for ever). And once a minute they
// are listed again whatever happened. A list that brings nothing new reports
// nothing, and documents that did not change stay the same pointers.
//
// See https://etcd.io/docs/v3.6/learning/api_guarantees/ for what a watch
// promises. Servers from 3.4 on are supported; progress requests do not pass
// an etcd gRPC proxy.
package etcd
