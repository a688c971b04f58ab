#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time, or that many
# times (20000x).
#
#   scripts/fuzz.sh 30s
#   scripts/fuzz.sh 5000x
#
# An input that fails is kept by go test under the package's testdata/fuzz;
# commit it, and it is a test from then on.
set -euo pipefail

cd "$(dirname "$0")/.."
fuzztime=${1:-20000x}

# Only packages with a target are compiled for it.
directories=$(find . -name '*_test.go' -exec grep -l '^func Fuzz' {} + | sed 's,/[^/]*$,,' | sort -u)
if [ -z "$directories" ]; then
    echo "fuzz: no fuzz target found" >&2
    exit 1
fi
for directory in $directories; do
    targets=$(go test -list '^Fuzz' "$directory" | grep '^Fuzz')
    for target in $targets; do
        echo "fuzz: $directory $target for $fuzztime"
        go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$directory"
    done
done
