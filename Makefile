# Targets for contributors and CI. All targets except the tools are phony, because the Go command caches builds.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
FUZZTIME ?= 8s
HISTORIES ?= 300
SOAK ?= 1m
BENCH ?= .
BENCHCOUNT ?= 6
BENCH_DEVICES ?= 1000,10000,100000,1000000
IMAGE ?= balena-exporter
DOCKER ?= docker

VERSION := $(shell cat VERSION)
REVISION := $(shell git rev-parse HEAD 2>/dev/null)
BRANCH := $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null)

# The time of the commit, so that builds are reproducible.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)

PACKAGE_VERSION := github.com/prometheus/common/version
LDFLAGS := -s -w -X $(PACKAGE_VERSION).Version=$(VERSION) -X $(PACKAGE_VERSION).Revision=$(REVISION) -X $(PACKAGE_VERSION).Branch=$(BRANCH)

TOOLS := bin/tools

# The race detector needs a C compiler.
RACE = $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

# $(call needs,go git) is a line of a recipe that fails with a message if one of these programs is missing.
needs = @GO='$(GO)' DOCKER='$(DOCKER)' test/needs.sh $(1)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##
## Build and run

# The trap removes the temporary directory if Go is interrupted. -buildvcs=false, because the version is in LDFLAGS, and git
# fails in a clone of another user.
.PHONY: build
build: ## Build exporter and simulator into bin/
	$(call needs,go)
	@echo 'Building the exporter and the simulator'
	@temporary=$$(mktemp -d); trap 'rm -rf "$$temporary"' EXIT; \
		CGO_ENABLED=0 GOTMPDIR=$$temporary $(GO) build -buildvcs=false -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: demo
demo: build ## Run the exporter on a simulated balenaCloud, or EDITION=openbalena, until ctrl-C
	@test/demo/run.sh bin

.PHONY: docker
docker: ## Build the container image with Docker
	$(call needs,docker)
	$(DOCKER) build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --build-arg BRANCH=$(BRANCH) -t $(IMAGE) .

.PHONY: promu
promu: $(TOOLS)/promu ## Build release binaries into .build/ as Prometheus projects do
	$(TOOLS)/promu build --prefix .build/$$($(GO) env GOOS)-$$($(GO) env GOARCH)

.PHONY: tarball
tarball: $(TOOLS)/promu ## Pack the release binaries into .tarballs/
	test/release/tarballs.sh .tarballs $$($(GO) env GOOS)/$$($(GO) env GOARCH)

RELEASE_PLATFORMS := linux/amd64 linux/arm64 linux/arm/v7 darwin/amd64 darwin/arm64 windows/amd64

.PHONY: release
release: $(TOOLS)/promu $(TOOLS)/nfpm $(TOOLS)/sbom ## Build all artifacts of a release into .release/ (root only)
	$(call needs,go git buildah busybox)
	test/release/build.sh $(RELEASE_PLATFORMS)

# Built rather than run by go run, so that a relative path in COSIGN_KEY is relative to this directory.
.PHONY: publish
publish: $(TOOLS)/cosign ## Push image and chart of .release/ to REGISTRY, signed with COSIGN_KEY or by GitHub Actions
	cd test/release && $(GO) build -buildvcs=false -o $(CURDIR)/bin/publish ./publish
	bin/publish -registry='$(REGISTRY)' -cosign=$(TOOLS)/cosign

##
## Check

# promtool is a prerequisite, because its first build takes minutes.
.PHONY: test
test: ## Run the checks and tests for a change
	$(call needs,go git)
	@MAKE='$(MAKE)' test/parts.sh check-format $(TOOLS)/promtool vet test-go test-histories test-prometheus test-dashboards test-chart

# Tests that are too slow for make test.
.PHONY: test-long
test-long: ## Run longer tests: the race detector, 3000 histories, 100,000 devices
	$(call needs,go cc)
	$(GO) test -race -timeout 30m ./collector
	$(MAKE) test-histories HISTORIES=3000
	cd test/prometheus && $(GO) test -count=1 -timeout 30m -run '^TestPageEqualsCollector$$' .

.PHONY: check-format
check-format: ## Fail on Go files that gofmt would change
	@files=$$(git ls-files --cached --others --exclude-standard '*.go'); \
	unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l $$files); \
	if [[ -n $$unformatted ]]; then echo "run gofmt -w on:" $$unformatted >&2; exit 1; fi

.PHONY: vet
vet: ## Run go vet
	$(GO) vet ./...
	cd test/prometheus && $(GO) vet ./...

.PHONY: test-go
test-go: ## Run the Go tests, with the race detector if there is a C compiler
	@[[ -n '$(RACE)' ]] || echo 'There is no C compiler: the tests run without the race detector.'
	$(GO) test $(RACE) -short -timeout 30m ./...

.PHONY: test-histories
test-histories: ## Compare the metrics after disturbed refreshes of HISTORIES (300) random accounts with the true state
	$(GO) test -count=1 -timeout 30m -run '^TestHistory$$' ./collector -history.count=$(HISTORIES)

.PHONY: test-prometheus
test-prometheus: $(TOOLS)/promtool ## Test the exposition, the alerts and the rules with the code of Prometheus
	cd test/prometheus && $(GO) test -short -count=1 -timeout 30m ./... # not cached, because Go does not detect changes of the programs that the tests run

.PHONY: test-chart
test-chart: ## Test the Helm chart
	$(MAKE) -C charts test

.PHONY: test-dashboards
test-dashboards: ## Test the dashboards with the types of Grafana, and their queries with the engine of Prometheus
	@for module in test/dashboards test/grafana; do (set -x; cd $$module && $(GO) vet ./... && $(GO) test -count=1 -timeout 30m ./...); done # not cached, because the dashboards are outside of the modules

.PHONY: test-live
test-live: $(TOOLS)/prometheus ## Test all rules and panels with a Prometheus server that scrapes the exporter during failures
	cd test/live && $(GO) vet ./... && $(GO) test $(RACE) -count=1 -timeout 30m ./...

.PHONY: e2e
e2e: ## Test the chart in a Kubernetes cluster on this machine (Linux and root only)
	$(MAKE) -C test/cluster e2e

.PHONY: test-statuspage
test-statuspage: ## Test the status pages with the Chromium of Debian: accessibility, keyboard, hostile names
	$(call needs,go npm chromium)
	cd test/statuspage && npm ci --ignore-scripts --no-audit --no-fund && npm test

.PHONY: test-sdk
test-sdk: build ## Test the simulator with balena-sdk, and compare it and the OS versions with npm packages of balena
	cd test/sdk && npm ci --ignore-scripts --no-audit --no-fund && npm test

.PHONY: pictures
pictures: ## Update the pictures in docs/images
	$(call needs,go npm chromium)
	@mkdir -p bin
	cd test/dashboards && $(GO) test -count=1 -run TestPicture . -args -picture=$(CURDIR)/bin/dashboard.html
	cd test/statuspage && npm ci --ignore-scripts --no-audit --no-fund && node pictures.js ../../docs/images $(CURDIR)/bin/dashboard.html

.PHONY: test-image
test-image: ## Build the container image with buildah, run and check it (root only)
	$(call needs,go)
	test/image/test.sh

.PHONY: test-demo
test-demo: ## Test make demo
	$(call needs,go git)
	test/demo/test.sh

.PHONY: test-release
test-release: test-artifacts test-reproducible test-packages test-registry ## Test all artifacts of a release (root only)

.PHONY: test-artifacts
test-artifacts: release ## Compare the artifacts in .release/ with their bills of materials, and test the generator of the bills
	cd test/tools/sbom && $(GO) vet ./... && $(GO) test -count=1 ./... -release=$(CURDIR)/.release

.PHONY: test-reproducible
test-reproducible: release ## Compare .release/ with a release of the same commit built in another directory (root only)
	MAKE='$(MAKE)' test/release/again.sh

.PHONY: test-packages
test-packages: release ## Install, upgrade and remove the Debian package of .release/ in a separate Debian system (root only)
	$(call needs,mmdebstrap systemd-nspawn busybox)
	test/release/deb.sh

.PHONY: test-registry
test-registry: release $(TOOLS)/cosign ## Publish .release/ to a registry on this machine, verify, pull and install it
	$(MAKE) -C test/cluster helm
	cd test/release && $(GO) vet ./... && $(GO) test -count=1 -timeout 30m ./...

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Run golangci-lint
	@for module in . test/chart test/dashboards test/grafana test/live test/prometheus test/release test/tools/sbom; do (set -x; cd $$module && $(CURDIR)/$(TOOLS)/golangci-lint run --allow-parallel-runners ./...); done

.PHONY: lint-shell
lint-shell: ## Run shellcheck (a package of Debian) on the shell scripts
	$(call needs,shellcheck)
	shellcheck .ci/run $$(git ls-files '*.sh')

.PHONY: lint-workflows
lint-workflows: $(TOOLS)/actionlint ## Run actionlint on the GitHub workflows, with shellcheck if it is installed
	$(TOOLS)/actionlint

.PHONY: vulncheck
vulncheck: $(TOOLS)/govulncheck ## Search the dependencies of the binaries for known vulnerabilities
	test/tools/govulncheck/run.sh $(CURDIR)/$(TOOLS)/govulncheck

.PHONY: fuzz
fuzz: ## Run each fuzz test for FUZZTIME (8s)
	@$(GO) test -list '^Fuzz' ./... | awk '/^Fuzz/ { name[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, name[i]; n = 0 }' | \
	while read -r package name; do echo "--- $$name"; $(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; done

.PHONY: soak
soak: ## Run the exporter with random failures for SOAK (1m), and check its memory, goroutines and files
	SOAK=$(SOAK) $(GO) test -count=1 -timeout 0 -v ./test/soak

.PHONY: bench
bench: build ## Compare the exporter with its limits and print a table (BENCH_DEVICES=1000,10000 for fewer sizes)
	@$(GO) run ./test/bench -bin bin -devices $(BENCH_DEVICES)

.PHONY: bench-prometheus
bench-prometheus: build $(TOOLS)/prometheus ## Measure the resources of a Prometheus server for 10,000 and 100,000 devices
	@$(GO) run ./test/bench -bin bin -devices 10000,100000 -prometheus $(TOOLS)/prometheus

.PHONY: bench-go
bench-go: $(TOOLS)/benchstat ## Run the Go benchmarks matching BENCH, for comparisons with benchstat
	@mkdir -p bin
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(BENCHCOUNT) ./... | tee bin/bench.out
	$(TOOLS)/benchstat bin/bench.out

##
## Maintain

.PHONY: generate
generate: ## Update generated files
	$(GO) generate ./...
	$(MAKE) -C charts generate
	cd test/prometheus && $(GO) test -count=1 -run '^TestNeededMetricsAreDocumented$$' ./rules -update

.PHONY: check-generated
check-generated: generate ## Fail if generated files are not up to date
	@if [[ -n $$(git status --porcelain) ]]; then git --no-pager diff; git status --short; echo "commit what make generate changed" >&2; exit 1; fi

# Each tool is pinned by a separate Go module, so that the dependencies of tools are independent.
$(TOOLS)/%: test/tools/%/go.mod test/tools/%/go.sum
	@echo 'Building $*, which takes minutes the first time'
	$(call needs,go)
	cd test/tools/$* && $(GO) build -buildvcs=false -o $(CURDIR)/$@ tool

$(TOOLS)/sbom: $(wildcard test/tools/sbom/*.go)

# Build without the clients of cloud providers, which are only used for service discovery.
$(TOOLS)/promtool $(TOOLS)/prometheus: export GOFLAGS += -tags=remove_all_sd

.PHONY: tools
tools: $(patsubst test/tools/%/go.mod,$(TOOLS)/%,$(wildcard test/tools/*/go.mod)) ## Build all pinned tools into bin/tools/

.PHONY: clean
clean: ## Remove all build results
	rm -rf bin .build .tarballs .release
