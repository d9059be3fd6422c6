# Millrace. `make` builds; `make help` lists the rest.

GO     ?= go
CACHE  := $(or $(MILLRACE_CACHE),$(HOME)/.cache/millrace)
export MILLRACE_CACHE := $(CACHE)

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS := -s -w -X main.version=$(VERSION)

GOLANGCI_VERSION := v2.15.0
GOLANGCI         := $(CACHE)/bin/golangci-lint

# What has to compile, all without cgo.
TARGETS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

# The race detector needs cgo and a C compiler; everything else does without.
RACE := $(shell command -v $$($(GO) env CC) >/dev/null 2>&1 && echo -race)

FUZZTIME ?= 30s

.DEFAULT_GOAL := build
.PHONY: build demo test imports vet cross unit lint fmt golangci e2e bench fuzz cover clean help

build: ## bin/millrace
	CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/millrace

demo: build ## the whole thing on sample records; needs Go and nothing else
	bin/millrace demo

test: imports vet cross unit ## all that CI runs except lint and the real server

imports: ## who may import whom
	$(GO) test -count=1 ./internal/archtest

vet:
	$(GO) vet ./...
	$(GO) vet -tags e2e ./e2e/...

cross: ## does it compile for every system, without cgo
	@set -e; for t in $(TARGETS); do \
		echo "GOOS=$${t%/*} GOARCH=$${t#*/} go build ./..."; \
		CGO_ENABLED=0 GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build -buildvcs=false -trimpath ./... ; \
	done

unit:
	@$(if $(RACE),,echo "no C compiler: testing without the race detector")
	$(if $(RACE),CGO_ENABLED=1 )$(GO) test $(RACE) -shuffle=on ./...

lint: golangci ## golangci-lint with .golangci.yml; builds it once, about five minutes
	$(GOLANGCI) run ./...

fmt: golangci ## format as lint wants it
	$(GOLANGCI) fmt ./...

golangci:
	@$(GO) version -m $(GOLANGCI) 2>/dev/null | grep -q 'golangci-lint/v2[[:space:]]*$(GOLANGCI_VERSION)' || { \
		echo "building golangci-lint $(GOLANGCI_VERSION) (once; about five minutes on two cores)"; \
		GOBIN=$(CACHE)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION); }

e2e: build ## against a real Ollama with a random model; builds it once, about five minutes
	scripts/ollama.sh >/dev/null
	MILLRACE_BIN=$(CURDIR)/bin/millrace $(GO) test -tags e2e -count=1 -timeout 15m -v ./e2e

bench: build ## Millrace against the usual recipe on a real Ollama
	scripts/ollama.sh >/dev/null
	$(GO) run ./bench/compare

fuzz: ## each fuzz target for FUZZTIME (30s)
	GO=$(GO) scripts/fuzz.sh $(FUZZTIME)

cover: ## test coverage in total, and line by line in bin/cover.html
	@mkdir -p bin
	$(GO) test -coverpkg=./internal/...,./cmd/... -coverprofile=bin/cover.out ./...
	$(GO) tool cover -func=bin/cover.out | tail -1
	$(GO) tool cover -html=bin/cover.out -o bin/cover.html

clean: ## remove what was built here; the cache stays
	rm -rf bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
