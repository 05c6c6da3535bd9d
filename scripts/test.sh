#!/bin/sh
# All that must hold before a change lands. Every stage runs, whatever the one before it said; the summary at the end names those that failed.
# GOTESTFLAGS adds flags to the tests; FUZZTIME is how long each fuzz target runs (5s).
set -u
cd "$(dirname "$0")/.."

: "${FUZZTIME:=5s}"
export FUZZTIME

summary= failed=0

# stage NAME COMMAND...
stage() {
  name=$1
  shift
  echo "--- $name"
  start=$(date +%s)
  if "$@"; then verdict='ok  '; else verdict=FAIL failed=$((failed + 1)); fi
  summary="$summary$verdict $name ($(($(date +%s) - start)) s)
"
}

demo() (
  cd demo && go vet ./... && go test -timeout 10m ./...
)

interop() (
  cd test/interop && go vet ./... && go test -race -timeout 10m ${GOTESTFLAGS:-} ./...
)

stage 'test servers' scripts/install-test-servers.sh
stage 'gofmt, go vet, staticcheck' scripts/lint.sh
# shellcheck disable=SC2086 # a list of flags
stage 'tests with the race detector' go test -race -timeout 15m ${GOTESTFLAGS:-} ./...
# The race detector allocates on its own: some of these skip under it.
stage 'allocation tests without it' go test -timeout 10m -run 'Alloc' ./internal/...
stage 'the HTTP door on the poller that is not the default' env MENSHEN_TEST_IO=netpoll go test -timeout 10m ./internal/httpdoor
stage 'HTTP/2 and gRPC with the tools of others (its own module)' interop
[ -f demo/go.mod ] && stage 'demo (its own module)' demo
stage "fuzz targets, $FUZZTIME each" scripts/fuzz.sh

echo "--- summary"
printf '%s' "$summary"
[ $failed -eq 0 ]
