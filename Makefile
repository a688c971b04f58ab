# Needs Go, git, GNU make 3.81 or later, and apt or brew; gets the rest itself.
# `make` alone lists the targets.

.DEFAULT_GOAL := help

# What the programs say about themselves. Given by hand where git knows nothing:
# make build VERSION=1.2.3
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

# CHECK=1 makes the demo try its own commands and exit; ARGS goes to drill and bench.
CHECK    ?=
ARGS     ?=
FUZZTIME ?= 20000x

# The version comes from LDFLAGS; Go need not ask git, which may refuse a tree
# that another user owns.
export GOFLAGS := $(GOFLAGS) -buildvcs=false
# Debian keeps nginx where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/sbin:/usr/local/sbin

# The Dockerfile builds with the same line; a test in scripts/ compares them.
BUILD = CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)"

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z][a-z0-9-]*:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: tools
tools: ## get Consul, etcd, Redis, an OpenID provider, curl and a C compiler; what is there already is kept
	@bash scripts/tools.sh cc curl redis-server etcd oidc-provider consul

.PHONY: build
build: ## build bin/sluice and bin/demo-service
	$(BUILD) -o bin/sluice ./cmd/sluice
	$(BUILD) -o bin/demo-service ./cmd/demo-service

.PHONY: test
test: unit e2e ## run every test: unit, then end-to-end; gets what it needs

.PHONY: unit
unit: tools ## run the package tests with the race detector
	packages=$$(go list ./...) && go test -race -timeout 15m $$(echo "$$packages" | grep -v '/test/e2e$$')
	@# Under the race detector proxy/tcp makes other system calls.
	go test ./proxy/tcp ./proxy/wire ./proxy

.PHONY: e2e
e2e: tools build ## run the built binary against real Consul, etcd and Redis
	go test -p 1 -timeout 30m ./test/e2e/...

.PHONY: lint
lint: ## check format, vet, staticcheck and the module files
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt -w these:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool -modfile=scripts/tools/lint/go.mod staticcheck ./...
	go mod verify
	go mod tidy -diff

.PHONY: fmt
fmt: ## format every Go file
	gofmt -w .

.PHONY: fuzz
fuzz: ## fuzz every target, FUZZTIME (20000x or 30s) each
	@bash scripts/fuzz.sh $(FUZZTIME)

.PHONY: demo
demo: build ## start all of it and print what to try; CHECK=1 tries it and exits
	@bash scripts/tools.sh curl etcd consul
	go build -o bin/demo ./scripts/demo
	@bin/demo $(if $(CHECK),-check)

.PHONY: drill
drill: build ## break things under load and count the requests lost (ARGS=-help)
	@bash scripts/tools.sh redis-server etcd consul
	go run ./scripts/drill $(ARGS)

.PHONY: bench
bench: build ## measure propagation, lookup, rebuild and cost beside other proxies (ARGS=-help)
	@bash scripts/tools.sh nginx haproxy wrk h2load redis-server etcd consul
	go run ./scripts/bench $(ARGS)

.PHONY: docker
docker: ## build the container image sluice:VERSION
	docker build --build-arg VERSION="$(VERSION)" --build-arg COMMIT="$(COMMIT)" -t "sluice:$(VERSION)" .

.PHONY: clean
clean: ## remove what was built, but keep the tools
	rm -rf bin/sluice bin/demo-service bin/demo dist

.PHONY: distclean
distclean: clean ## remove the built tools as well
	rm -rf bin
