#!/bin/sh
# gofmt, go vet and staticcheck, over this module. Nothing is changed.
set -u
cd "$(dirname "$0")/.."

failed=0

unformatted=$(find . -name '*.go' -not -path '*/testdata/*' -exec gofmt -l {} +)
if [ -n "$unformatted" ]; then
  echo "gofmt would change:"
  echo "$unformatted"
  failed=1
fi

go vet ./... || failed=1
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./... || failed=1
exit $failed
