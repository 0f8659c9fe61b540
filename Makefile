# weft: a userspace overlay router for Kubernetes pod networks.
# `make` lists the targets. Those that touch the network need root.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X weft/internal/version.Version=$(VERSION)
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'

# The linters' versions are pinned here: go.mod holds what weft itself needs.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

FUZZTIME ?= 30s

.DEFAULT_GOAL := help
.PHONY: help deps build demo demo-clean test lint fuzz bench clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install the Debian packages that are missing
	@scripts/deps

build: ## build weftd, weft-cni and weft into bin/
	@$(GOBUILD) -o bin/ ./cmd/...

demo: deps build ## show weft at work on three nodes (KEEP=1 leaves it running; DRIVER=water)
	@go build -o bin/demo ./internal/demo
	@bin/demo --bin bin $(if $(KEEP),--keep) $(if $(DRIVER),--driver $(DRIVER))

demo-clean: ## remove what `make demo KEEP=1` left running
	@go build -o bin/demo ./internal/demo
	@bin/demo --clean

test: deps ## run all tests, those in network namespaces included, under the race detector
	go test -race ./...

lint: ## check formatting, vet and staticcheck
	@test -z "$$(gofmt -l .)" || { echo "not gofmt-ed:"; gofmt -l .; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

fuzz: ## run each fuzz target for FUZZTIME (30s)
	@scripts/fuzz $(FUZZTIME)

bench: ## measure the data path's own code: lookup, one packet out, one packet in
	go test -run '^$$' -bench . -benchmem ./router/...

clean: ## remove what the build made
	rm -rf bin
