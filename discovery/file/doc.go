// Package file is the source that reads documents from a directory:
//
//	routes/NAME.yaml  services/NAME.yaml  plugins/NAME.yaml  consumers/NAME.yaml
//	active/NAME
//
// also with the endings .yml and .json, and active/NAME.txt. Hidden files and
// the backups of editors are left alone. What ends like a document in a folder
// whose name is a letter or two off is reported without its value, as a mistake
// in its key. Links are followed, so that a mounted Kubernetes ConfigMap works,
// whose update swaps one link.
//
// A change is seen by the notifications of the system and read once they have
// been quiet for a moment, since editors and deployments move several files
// for one change; a slow scan finds what no notification told. A file that
// cannot be read keeps its last version, and so does everything when the
// directory is gone.
package file
