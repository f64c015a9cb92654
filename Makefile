# Builds, tests and checks the project. `make` without a target lists all targets.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -X main.version=$(VERSION)
BIN      := $(CURDIR)/bin
LINTER   := $(BIN)/golangci-lint
LINT_VERSION := v2.15.0

# TESTFLAGS are more flags for go test, such as TESTFLAGS='-run TestRun -v'. PACKAGES are the
# packages to test. The slowest start first. Those that use the CPU run next to those that wait, so
# that none is left alone at the end.
TESTFLAGS ?=
PACKAGES  ?= ./cmd/pentrough ./transports/amqp ./internal/testenv ./cmd/... ./...
FUZZTIME  ?= 10s
BENCH     ?= .
BENCHTIME ?= 1s

# MODULES are the Go modules next to the main one.
MODULES := bench/gnet bench/goplugin docs/examples/redis

# A program built with -race sleeps for a second before it exits, to report late races. The tests
# run hundreds of programs, so this shortens the sleep.
export GORACE ?= atexit_sleep_ms=20

# For make chaos: the seed that decides faults and commands; the number of faults (empty: one of
# each kind); the number of crash points (empty: all); the folder for histories and reports.
CHAOS_SEED   ?= 1
CHAOS_FAULTS ?=
CHAOS_POINTS ?=
CHAOS_KEEP   ?=
export CHAOS_FAULTS CHAOS_POINTS CHAOS_KEEP

# How often each attack is carried out on the host and on its peer, and which attacks.
ATTACK_PAIRS   ?= 1
ATTACK         ?= .*
ATTACK_TIMEOUT ?= 3h

.PHONY: help
help: ## list all targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: build
build: ## build bin/pentrough and bin/devsim
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

.PHONY: run
run: ## run a host with the embedded quickstart configuration
	$(GO) run ./cmd/pentrough run

.PHONY: demo
demo: build tools ## run configs/commands.toml on a private broker, with 100 simulated devices (127.1.0.0, ...)
	@$(GO) run ./internal/testenv/withbroker sh -c 'export AMQP_URL=$$PENTROUGH_TEST_AMQP_URL PATH=$(BIN):$$PATH; \
		echo "try: $(BIN)/pentrough send 127.1.0.7 open --amqp $$AMQP_URL"; \
		devsim -n 100 -rate 0.1 -reconnect & pentrough run -c configs/commands.toml; kill $$!'

.PHONY: test
test: tools ## run all tests with the race detector, on private brokers
	$(GO) run ./internal/testenv/withbroker $(GO) test -race -timeout 30m -parallel 4 $(TESTFLAGS) $(PACKAGES)

# Each busy loop ends when this make ends.
.PHONY: test-busy
test-busy: tools ## run all tests while four busy loops use the CPU
	@for i in 1 2 3 4; do (while kill -0 $$$$ 2>/dev/null; do :; done) & done; $(MAKE) test

.PHONY: tools
tools: ## install missing Debian packages that the tests need
	@.ci/tools

.PHONY: lint
lint: $(LINTER) ## check formatting, run go vet and the linters, and build for macOS
	$(LINTER) fmt --diff
	$(GO) vet ./...
	for module in $(MODULES); do $(GO) -C $$module vet ./... || exit; done
	$(LINTER) run
	GOOS=darwin $(GO) build -o /dev/null ./cmd/pentrough

$(LINTER):
	GOBIN=$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

.PHONY: fmt
fmt: $(LINTER) ## format the code
	$(LINTER) fmt

.PHONY: docs
docs: ## write the generated files
	$(GO) generate ./...

.PHONY: check
check: docs ## fail if generated files or go.mod are out of date
	for module in . $(MODULES); do $(GO) -C $$module mod tidy -diff || exit; done
	@changed=$$(git status --porcelain -- docs configs); \
	if [ -n "$$changed" ]; then \
		echo "generated files are out of date; commit what 'make docs' wrote:"; echo "$$changed"; git diff -- docs configs; exit 1; \
	fi

.PHONY: bench
bench: tools ## run the benchmarks, each next to its peer, on a private broker
	$(GO) run ./internal/testenv/withbroker $(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem -p 1 -timeout 30m $(TESTFLAGS) $(PACKAGES)

.PHONY: bench-devices
bench-devices: tools ## run the benchmarks of devices, each next to its peers: frames, idle devices, commands to a fleet, and a fleet that comes back
	$(GO) test -run '^$$' -bench '^BenchmarkDeviceFrames$$' -benchtime 200000x -count 6 -timeout 30m $(TESTFLAGS) ./cmd/pentrough
	$(GO) run ./internal/testenv/withbroker $(GO) test -run '^$$' -bench '^Benchmark(IdleDevices|FleetCommands|Reconnect)$$' -benchtime 1x -timeout 60m $(TESTFLAGS) ./cmd/pentrough

.PHONY: bench-plugins
bench-plugins: ## run the benchmark of process plugins, next to hashicorp/go-plugin
	$(GO) -C bench/goplugin test -run '^$$' -bench '$(BENCH)' -benchtime 1x -timeout 30m $(TESTFLAGS) .

# The tests mount small disks. In namespaces of its own, the run needs no root.
.PHONY: chaos
chaos: tools ## run commands while broker, devices and host fail as CHAOS_SEED says, and judge the history; then crash points, full disks and planted mistakes
	CHAOS_SEED=$(CHAOS_SEED) unshare $(if $(filter-out 0,$(shell id -u)),--map-root-user) --mount \
		$(GO) test -count 1 -run 'TestChaos|TestCrashPoints|TestFullDisk|TestPlanted' -v -timeout 30m $(TESTFLAGS) ./internal/chaos

.PHONY: attacks
attacks: tools ## attack a host and a bare accept loop ATTACK_PAIRS times (1) from 127.0.0.0/8, and compare them; ATTACK chooses attacks by a regular expression
	ATTACK_PAIRS=$(ATTACK_PAIRS) $(GO) run ./internal/testenv/withbroker \
		$(GO) test -count 1 -run '^TestAttacks$$/^($(ATTACK))$$' -v -timeout $(ATTACK_TIMEOUT) $(TESTFLAGS) ./internal/attack

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (10s)
	@set -e; for package in $$($(GO) list $(PACKAGES)); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

.PHONY: clean
clean: ## remove build results
	rm -rf $(BIN)
