# The two commands of a newcomer: make demo, make test. "make help" lists the others.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 30s
SCENARIO ?= .
BENCHFLAGS ?= -record

.PHONY: help build demo test fuzz lint bench profile

help:
	@echo "make build   the gateway: bin/menshen"
	@echo "make demo    both doors with sample services and databases; nothing to install but Go"
	@echo "make test    installs missing test servers (Debian), then lint, all tests with -race, a short fuzz of each target"
	@echo "make lint    gofmt, go vet, staticcheck"
	@echo "make fuzz    each fuzz target for FUZZTIME (now $(FUZZTIME)); TARGET=regexp chooses"
	@echo "make profile cmd/menshen/default.pgo: what the compiler knows of the hot paths, taken under the loads of the benchmarks"
	@echo "make bench   figures beside nginx, HAProxy and MariaDB, appended to bench/results.md; SCENARIO=regexp chooses"

build:
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/menshen ./cmd/menshen

demo:
	cd demo && go run .

test:
	scripts/test.sh

lint:
	scripts/lint.sh

fuzz:
	FUZZTIME=$(FUZZTIME) scripts/fuzz.sh $(TARGET)

bench:
	go test -count=1 -run '^$$' -bench '$(SCENARIO)' -benchtime 1x -timeout 3h ./bench -args $(BENCHFLAGS)

profile:
	go test -count=1 -run '^$$' -bench '^BenchmarkProfile$$' -benchtime 1x ./bench -args -profile $(CURDIR)/cmd/menshen/default.pgo
