#!/bin/sh
# Runs every fuzz target of this module for FUZZTIME (5s), one after the other. An argument is a regular expression on "folder:FuzzName" that chooses;
# "-l" lists them. A failing input is kept by `go test` under testdata/fuzz of its package: commit it with the fix.
set -u
cd "$(dirname "$0")/.."

: "${FUZZTIME:=5s}"
list=0
[ "${1:-}" = -l ] && { list=1; shift; }
choose=${1:-.}

# By text, not by `go test -list`: that would link every test binary of the module.
targets=$(find . -name '*_test.go' -not -path './demo/*' -exec grep -s '^func Fuzz[A-Za-z0-9_]*(' /dev/null {} + |
  sed 's|^\./\([^:]*\)/[^/:]*:func \(Fuzz[A-Za-z0-9_]*\).*|\1:\2|' | sort -u | grep -E -e "$choose")

if [ $list -eq 1 ]; then
  echo "$targets"
  exit 0
fi

passed=0 failed=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT
for target in $targets; do
  folder=${target%%:*} name=${target#*:}
  if go test -run '^$' -fuzz "^$name\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 5s -timeout 30m "./$folder" >"$output" 2>&1; then
    passed=$((passed + 1))
    echo "fuzz ok    $target  $(grep -o 'execs: [0-9]*' "$output" | tail -n 1)"
  elif grep -q 'context deadline exceeded' "$output" && ! grep -q 'Failing input written' "$output"; then
    # The fuzzing engine reports its own deadline as a failure when it ends while a worker is busy (golang/go#56238).
    passed=$((passed + 1))
    echo "fuzz ok    $target  (ended while a worker was busy)"
  else
    failed=$((failed + 1))
    echo "fuzz FAIL  $target"
    cat "$output"
  fi
done
echo "fuzz targets: $passed passed, $failed failed"
[ $failed -eq 0 ]
