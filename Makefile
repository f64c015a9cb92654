# Everything that the project does to itself. `make` alone lists it.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -X main.version=$(VERSION)
BIN      := $(CURDIR)/bin
LINTER   := $(BIN)/golangci-lint
LINT_VERSION := v2.15.0

# More flags for go test, such as TESTFLAGS='-run TestRun -v'; and what to test. The packages that take longest start first, those
# that use the CPU next to those that wait: none is left alone at the end.
TESTFLAGS ?=
PACKAGES  ?= ./cmd/pentrough ./transports/amqp ./internal/testenv ./cmd/... ./...
FUZZTIME  ?= 10s
BENCH     ?= .
BENCHTIME ?= 1s

# A program built with -race sleeps for a second before it exits, to report late races. The tests run hundreds of programs.
export GORACE ?= atexit_sleep_ms=20

# What a run of chaos draws its faults and commands from, how many faults (all kinds when empty), how many crash points (all when empty), and
# where to leave histories and reports.
CHAOS_SEED   ?= 1
CHAOS_FAULTS ?=
CHAOS_POINTS ?=
CHAOS_KEEP   ?=
export CHAOS_FAULTS CHAOS_POINTS CHAOS_KEEP

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: build
build: ## build bin/pentrough and bin/devsim
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

.PHONY: run
run: ## run the embedded quickstart
	$(GO) run ./cmd/pentrough run

.PHONY: demo
demo: build tools ## run configs/commands.toml on a private broker, with 100 devices from 127.1.0.0 on
	@$(GO) run ./internal/testenv/withbroker sh -c 'export AMQP_URL=$$PENTROUGH_TEST_AMQP_URL PATH=$(BIN):$$PATH; \
		echo "try: $(BIN)/pentrough send 127.1.0.7 open --amqp $$AMQP_URL"; \
		devsim -n 100 -rate 0.1 -reconnect & pentrough run -c configs/commands.toml; kill $$!'

.PHONY: test
test: tools ## run all tests with the race detector, on private brokers
	$(GO) run ./internal/testenv/withbroker $(GO) test -race -timeout 30m -parallel 4 $(TESTFLAGS) $(PACKAGES)

# Each busy loop ends with the run, however that ends.
.PHONY: test-busy
test-busy: tools ## run all tests while four busy loops use the CPU
	@for i in 1 2 3 4; do (while kill -0 $$$$ 2>/dev/null; do :; done) & done; $(MAKE) test

.PHONY: tools
tools: ## install what the tests need from Debian, if it is missing
	@.ci/tools

.PHONY: lint
lint: $(LINTER) ## check formatting, go vet, the chosen linters, and that it builds for macOS
	$(LINTER) fmt --diff
	$(GO) vet ./...
	for module in bench/goplugin docs/examples/redis; do $(GO) -C $$module vet ./... || exit; done
	$(LINTER) run
	GOOS=darwin $(GO) build -o /dev/null ./cmd/pentrough

$(LINTER):
	GOBIN=$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

.PHONY: fmt
fmt: $(LINTER) ## format the code
	$(LINTER) fmt

.PHONY: docs
docs: ## write the generated pages
	$(GO) generate ./...

.PHONY: check
check: docs ## fail if generated files or go.mod are not current
	for module in . bench/goplugin docs/examples/redis; do $(GO) -C $$module mod tidy -diff || exit; done
	@changed=$$(git status --porcelain -- docs configs); \
	if [ -n "$$changed" ]; then \
		echo "generated files are not current; commit what 'make docs' wrote:"; echo "$$changed"; git diff -- docs configs; exit 1; \
	fi

.PHONY: bench
bench: tools ## run the benchmarks, on a private broker, each beside its peer
	$(GO) run ./internal/testenv/withbroker $(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem -p 1 -timeout 30m $(TESTFLAGS) $(PACKAGES)

.PHONY: bench-plugins
bench-plugins: ## run the benchmark of processes as plugins, beside hashicorp/go-plugin
	$(GO) -C bench/goplugin test -run '^$$' -bench '$(BENCH)' -benchtime 1x -timeout 30m $(TESTFLAGS) .

# Some disks are small and mounted for that: in namespaces of its own, where anybody may.
.PHONY: chaos
chaos: tools ## break a broker, devices and a host as CHAOS_SEED says, and judge what came of it; then crash points, a full disk, and hosts with planted mistakes
	CHAOS_SEED=$(CHAOS_SEED) unshare $(if $(filter-out 0,$(shell id -u)),--map-root-user) --mount \
		$(GO) test -count 1 -run 'TestChaos|TestCrashPoints|TestFullDisk|TestPlanted' -v -timeout 30m $(TESTFLAGS) ./internal/chaos

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (10s)
	@set -e; for package in $$($(GO) list $(PACKAGES)); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
