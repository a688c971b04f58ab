// Package configs holds the gateway's settings: their types, defaults, and
// how they are read and checked.
//
// A setting has one dotted key ("etcd.endpoints"). Its value is the first
// found of: the flag --etcd.endpoints, the environment variable
// SLUICE_ETCD_ENDPOINTS (lists separated by commas), the YAML file, and
// Default. Unknown keys in the file and unknown SLUICE_ variables are errors.
//
// Load returns every fault at once, each with where the value came from and
// its key. Secrets are in no error and in no form of a Config that prints.
package configs
