# Everything here runs with Go, make and git; the tools are built by `go run` at these versions.
BUF := go run github.com/bufbuild/buf/cmd/buf@v1.75.0
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
ACTIONLINT := go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

# All Go modules, and all directories with .proto files and a gen/ of their own.
MODULES := $(patsubst %/,%,$(dir $(wildcard go.mod */go.mod)))
BUF_DIRS := $(patsubst %/,%,$(dir $(wildcard buf.gen.yaml */buf.gen.yaml */*/buf.gen.yaml */*/*/buf.gen.yaml)))

# $(call in,DIRS,COMMAND) runs the command in each of the directories, and in the others even where it fails in one.
in = @failed=0; for dir in $(1); do echo "+ cd $$dir && $(2)"; (cd $$dir && $(2)) || failed=1; done; exit $$failed

# $(call dev,NAME) runs a program of internal/dev. `go run` would print "exit status 1" below what the program says.
dev = go build -o bin/dev/ ./internal/dev/$(1) && bin/dev/$(1)

# The commit that check-breaking compares with; empty is the remote's default branch, or else origin/main or main.
BASE ?=

# The first run of the tests builds buf, which can take most of go test's own ten minutes.
TEST_TIMEOUT ?= 30m

# Tests of a nested module read files outside of it, and go test's cache does not see when those change.
FRESH = $$(test "$$dir" = . || echo -count=1)

# How long chaos is, and what it repeats: the seed that a run has printed; 0 is a new one.
FOR ?= 10m
SEED ?= 0

.PHONY: help
help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The starter's own: `make new` leaves out this line and the file.
include starter.mk

# Without cgo, the programs load no C library, and so run in a container that has nothing else (FROM scratch).
.PHONY: build
build: ## build bin/server and bin/client
	CGO_ENABLED=0 go build -o bin/ ./server ./client

.PHONY: run
run: build ## show it work: start the server, call each method, stop the server
	@$(call dev,run) bin/server bin/client '-metadata name=koye' '-method Split' '-method Join' '-method Echo'

.PHONY: test
test: ## run all tests
	$(call in,$(MODULES),go test $(FRESH) -timeout $(TEST_TIMEOUT) ./...)

.PHONY: test-race
test-race: ## run all tests with the race detector, which needs a C compiler
	$(call in,$(MODULES),go test $(FRESH) -timeout $(TEST_TIMEOUT) -race ./...)

.PHONY: test-root
test-root: ## run all tests as root, and fail where one would be skipped because a program is missing
	@test "$$(id -u)" = 0 || \
		{ echo 'test-root: you are not root: sudo -H env "PATH=$$PATH" make test-root' >&2; exit 1; }
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && TMPDIR=$$tmp TEST_REQUIRE=all $(MAKE) test

.PHONY: chaos
chaos: ## attack, stop and kill servers FOR a duration (10m); with GOFLAGS=-race, it looks for races as well
	go test -count 1 -timeout 0 -v -run '^TestChaos' ./internal/e2e -for $(FOR) -seed $(SEED) -strict

.PHONY: generate
generate: ## write gen/ from proto/
	$(call in,$(BUF_DIRS),$(BUF) generate)

.PHONY: check
check: check-generated lint check-breaking tidy vet ## run all checks of a pull request except the tests

.PHONY: check-generated
check-generated: ## fail if gen/ is not what buf writes from proto/
	@$(call dev,check-generated) $(BUF)

.PHONY: lint
lint: ## lint the .proto files, the Go code and the workflows
	$(call in,$(BUF_DIRS),$(BUF) lint && $(BUF) format --diff --exit-code)
	$(call in,$(MODULES),$(GOLANGCI_LINT) run --allow-parallel-runners)
	$(ACTIONLINT)

.PHONY: check-breaking
check-breaking: ## fail if the .proto files break callers of BASE (default: the remote's default branch)
	@$(call dev,check-breaking) '$(BASE)' $(BUF)

.PHONY: tidy
tidy: ## fail if `go mod tidy` would change go.mod or go.sum
	$(call in,$(MODULES),go mod tidy -diff)

.PHONY: vet
vet: ## vet for every platform that must compile
	$(call in,$(MODULES),GOOS=linux go vet ./... && GOOS=darwin go vet ./... && GOOS=windows go vet ./...)

.PHONY: certs
certs: ## write certificates to try TLS with into certs/
	@$(call dev,certs) certs
