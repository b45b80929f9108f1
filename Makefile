# Carillon: one workspace of Go modules. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export GOTOOLCHAIN := local
BIN     := $(CURDIR)/.bin
DIST    := $(CURDIR)/dist
MODULES := $(patsubst %/go.mod,%,$(wildcard */go.mod */load/go.mod))
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/carillon-rt/carillon/kit/service.version=$(VERSION)

# Tools are pinned here and live in .bin/, a folder per version.
GOFUMPT_VERSION     := v0.12.0
STATICCHECK_VERSION := v0.8.2
GOLANGCI_VERSION    := v2.15.0
GOFUMPT     := $(BIN)/gofumpt-$(GOFUMPT_VERSION)/gofumpt
STATICCHECK := $(BIN)/staticcheck-$(STATICCHECK_VERSION)/staticcheck
GOLANGCI    := $(BIN)/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

.PHONY: run
run: build ## build, then start everything in one process with a demo page (http://127.0.0.1:6001/)
	$(DIST)/carillon serve --dev

DATA ?=
.PHONY: cluster
cluster: build ## build, then start a cluster of three nodes on this machine; DATA=<dir> keeps its files
	$(DIST)/carillon cluster $(if $(DATA),--data $(DATA))

.PHONY: build
build: ## build dist/carillon
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(DIST)/carillon ./standalone/cmd/carillon

# --- checks ---------------------------------------------------------------------------------------------------------

.PHONY: check
check: static ## what must pass before every commit: formatting, vet, staticcheck, modules, short tests
	packages=$$(go list work | grep -v -e /tests/e2e -e /tests/roadrunner -e /tests/operations -e '/tests/chaos$$'); go test -short $$packages

.PHONY: static
static: format vet lint modules rules

.PHONY: format
format: $(GOFUMPT)
	@files=$$($(GOFUMPT) -l $(MODULES)); \
	if [ -n "$$files" ]; then echo "not formatted, run 'make fmt':"; echo "$$files"; exit 1; fi

.PHONY: fmt
fmt: $(GOFUMPT) ## format everything
	$(GOFUMPT) -l -w $(MODULES)

.PHONY: lint-more
lint-more: $(GOLANGCI) ## what golangci-lint finds beyond that; takes minutes the first time
	$(GOLANGCI) run $(addsuffix /...,$(addprefix ./,$(MODULES)))

.PHONY: vet
vet:
	go vet work

.PHONY: lint
lint: $(STATICCHECK)
	$(STATICCHECK) $(addsuffix /...,$(addprefix ./,$(MODULES)))

# A workspace hides a missing require; only GOWORK=off shows it.
.PHONY: modules
modules:
	@bad=; for m in $(MODULES); do \
		(cd $$m && GOWORK=off go build ./... && GOWORK=off go mod tidy -diff) || bad="$$bad $$m"; \
	done; \
	if [ -n "$$bad" ]; then echo "go.mod is not right in:$$bad (cd there and run GOWORK=off go mod tidy)"; exit 1; fi

.PHONY: rules
rules:
	go test -count=1 ./tests/rules

.PHONY: config-docs
config-docs: build ## write docs/configuration.md and docs/carillon.schema.json again
	$(DIST)/carillon config reference > docs/configuration.md
	$(DIST)/carillon config schema > docs/carillon.schema.json

# --- tests ----------------------------------------------------------------------------------------------------------

.PHONY: test
test: static e2e-deps build ## everything: the checks, all tests with the race detector, real SDKs
	packages=$$(go list work | grep -v '/tests/[^l]'); go test -race -shuffle=on -timeout 10m $$packages
	go test ./gateway/internal/session # sizes and allocations, which the race detector changes
	CARILLON_BIN=$(DIST)/carillon go test -race -shuffle=on -timeout 10m ./tests/chaos
	packages=$$(go list ./tests/... | grep -v '/tests/chaos$$'); CARILLON_BIN=$(DIST)/carillon go test -race -shuffle=on -timeout 15m -p 2 $$packages

.PHONY: e2e
e2e: e2e-deps build ## only the tests of module tests: several processes, real SDKs
	CARILLON_BIN=$(DIST)/carillon go test -count=1 -timeout 10m -p 1 ./tests/...

.PHONY: e2e-race
e2e-race: e2e-deps ## the real SDKs against a binary with the race detector, which ends at the first race
	go build -race -o $(DIST)/carillon-race ./standalone/cmd/carillon
	GORACE=halt_on_error=1 CARILLON_BIN=$(DIST)/carillon-race go test -count=1 -timeout 10m ./tests/e2e ./tests/roadrunner ./tests/operations ./tests/badinput

SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
MINUTES ?= 2
CHAOSFLAGS ?=
.PHONY: chaos
chaos: build ## break one part of a cluster after the other for MINUTES (2) and check what clients saw; SEED repeats the faults
	@echo "make chaos SEED=$(SEED) MINUTES=$(MINUTES) CHAOSFLAGS='$(CHAOSFLAGS)'"
	CARILLON_BIN=$(DIST)/carillon go test -count=1 -v -timeout $$(awk 'BEGIN { print int($(MINUTES)) + 10 }')m ./tests/chaos -run '^TestChaos$$' -args -seed $(SEED) -minutes $(MINUTES) $(CHAOSFLAGS)

# The SDKs that tests/sdk pins, in their own folders there, and a browser.
.PHONY: e2e-deps
e2e-deps:
	.ci/e2e-deps

FUZZTIME ?= 20s
.PHONY: fuzz
fuzz: ## run every fuzz test for FUZZTIME (20s)
	.ci/fuzz $(FUZZTIME)

REPS ?= 3
BENCHFLAGS ?=
.PHONY: bench
bench: build ## measure against the budgets, next to raw loops in C and Go, REPS (3) times; BASE=<commit> compares with that one
	@if [ -n "$(BASE)" ]; then .ci/bench "$(BASE)" $(REPS) $(BENCHFLAGS); else \
	CARILLON_BIN=$(DIST)/carillon go run ./tests/perf/cmd/bench -reps $(REPS) -json $(DIST)/bench.json -lines $(DIST)/bench.txt $(BENCHFLAGS); fi

CLIENTS ?= 10000
RATE ?= 500
N ?= 1000000
.PHONY: resume
resume: build ## CLIENTS (10000) subscribers of a durable channel lose their gateway while RATE (500) messages a second are published
	CARILLON_BIN=$(DIST)/carillon go test -count=1 -v ./tests/perf -run '^TestResume$$' -args -resume-clients $(CLIENTS) -resume-rate $(RATE)

.PHONY: million
million: build ## hold N (1000000) connections on this machine, through as many gateways as that takes, as far as its memory goes
	CARILLON_BIN=$(DIST)/carillon go run ./tests/perf/cmd/bench -million $(N)

.PHONY: cover
cover: ## write dist/cover.html
	mkdir -p $(DIST)
	go test -short -coverpkg=$$(echo $(addsuffix /...,$(addprefix ./,$(filter-out tests,$(MODULES)))) | tr ' ' ,) -coverprofile=$(DIST)/cover.out work
	go tool cover -html=$(DIST)/cover.out -o $(DIST)/cover.html
	go tool cover -func=$(DIST)/cover.out | tail -1

.PHONY: clean
clean: ## remove what was built and installed here
	rm -rf $(DIST) $(BIN) tests/sdk/node/node_modules tests/sdk/python/.venv

# --- tools ----------------------------------------------------------------------------------------------------------

$(GOFUMPT):
	GOBIN=$(dir $@) GOWORK=off go install mvdan.cc/gofumpt@$(GOFUMPT_VERSION)

$(STATICCHECK):
	GOBIN=$(dir $@) GOWORK=off go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

$(GOLANGCI):
	GOBIN=$(dir $@) GOWORK=off go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
