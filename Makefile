# SPDX-FileCopyrightText: The Headgate Authors
# SPDX-License-Identifier: Apache-2.0

# Everything needs Go and make only; e2e and the demo also need root (they run a whole Kubernetes on this
# machine) and install what else is missing from the distribution, saying what. `make` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Modules whose code is checked and tested. e2e/cluster/kubernetes holds only what compiles Kubernetes.
MODULES := . webhook/validation charts e2e/cluster e2e/demo analysis/simulate/report hack/bench internal/simulate/fidelity

# Tools at the versions of tools/go.mod, compiled once and then taken from the build cache.
TOOL = go tool -modfile=$(CURDIR)/tools/go.mod

# An existing cluster, which must have the images; empty: a local one is brought up and taken down.
KUBECONFIG ?=
# The minor version of Kubernetes that the local cluster runs; empty: the one of e2e/cluster/kubernetes/go.mod.
KUBERNETES ?=
# What of the end-to-end tests to run, and how long they may take.
RUN ?= .
E2E_TIMEOUT ?= 80m
# How many rollouts `make acceptance` simulates in each world.
RUNS ?= 500
# How long `make fuzz` spends on each fuzz test.
FUZZTIME ?= 30s
# How long `make simulate` and `make soak` play random histories, and the first seed: the clock's, to see new ones.
SIMULATE ?= 1m
SOAK ?= 1h
SEED := $(or $(SEED),$(shell date +%s))
# How many histories `make fidelity` compares.
FIDELITY ?= 600
# Which benchmarks to run, and how many rollouts, or starts of pods, those on a cluster make.
BENCH ?= .
BENCHTIME ?= 10x
# Arguments of `make demo`, for example ARGS=--plain.
ARGS ?=

export HEADGATE_KUBECTL ?= $(CURDIR)/.cache/bin/kubectl
export HEADGATE_HELM ?= $(CURDIR)/.cache/bin/helm
# Tests of queries run against a real Prometheus where there is one.
export PATH := $(PATH):$(CURDIR)/.cache/prometheus/usr/bin

##@ To see it

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show three updates of a shop under load: a good one, a bad one, one that crashes
	@go -C e2e/demo run . $(ARGS)

.PHONY: demo-down
demo-down: ## Remove what the demo brought up
	@go -C e2e/cluster run . down --name demo

##@ To change it

.PHONY: unit
unit: ## Vet and run the tests that need neither root nor a cluster (under a minute once compiled)
	@VET=1 hack/gotest.sh unit -- $(MODULES)

.PHONY: test
test: ## Run everything: unit, race, lint, verify, end to end; print what took how long
	@hack/test.sh

.PHONY: race
race: ## Run the tests under the race detector
	@hack/gotest.sh race -race -short -- . e2e/demo

.PHONY: fuzz
fuzz: ## Let every fuzz test look for new inputs for FUZZTIME (30s)
	@hack/fuzz.sh $(FUZZTIME)

.PHONY: simulate
simulate: ## Play random histories against the controller and the webhooks for SIMULATE (1m), from SEED on
	@echo "random histories for $(SIMULATE), SEED=$(SEED)"
	@HEADGATE_SIMULATE_FOR=$(SIMULATE) HEADGATE_SIMULATE_SEED=$(SEED) PACKAGES=./internal/simulate \
		hack/gotest.sh simulate -count=1 -timeout 25h -v -run '^TestRandomHistories$$' -- .

.PHONY: soak
soak: ## The same for SOAK (1h); then break and update at random on a real cluster, for SOAK too (root)
	@$(MAKE) --no-print-directory simulate SIMULATE=$(SOAK) SEED=$(SEED)
	@echo "a random walk on a cluster for $(SOAK), SEED=$(SEED)"
	@HEADGATE_E2E_WALK=$(SOAK) HEADGATE_E2E_WALK_SEED=$(SEED) GOTESTSUM_FORMAT=standard-verbose \
		RUN='^TestWalk$$' E2E_TIMEOUT=25h KUBECONFIG='$(KUBECONFIG)' hack/e2e.sh

.PHONY: fidelity
fidelity: ## Compare the simulation's native controllers with the real ones, in FIDELITY (600) histories from SEED on
	@echo "$(FIDELITY) histories, SEED=$(SEED)"
	@HEADGATE_SIMULATE_HISTORIES=$(FIDELITY) HEADGATE_SIMULATE_SEED=$(SEED) \
		hack/gotest.sh fidelity -count=1 -timeout 25h -v -- internal/simulate/fidelity

.PHONY: e2e
e2e: ## Run the end-to-end tests, on KUBECONFIG or a local cluster made for them; RUN=regexp selects
	@RUN='$(RUN)' E2E_TIMEOUT='$(E2E_TIMEOUT)' KUBECONFIG='$(KUBECONFIG)' KUBERNETES='$(KUBERNETES)' hack/e2e.sh

.PHONY: bench
bench: ## Measure bench-fast, and BENCHTIME (10x) rollouts of each kind and starts of pods on a real cluster (root; an hour; BENCH=regexp selects)
	@{ go test -run '^$$' -bench '$(BENCH)' -v ./...; \
		BENCH='$(BENCH)' BENCHTIME='$(BENCHTIME)' KUBECONFIG='$(KUBECONFIG)' hack/e2e.sh; } | go -C hack/bench run . -out $(CURDIR)/out/bench.json

.PHONY: acceptance
acceptance: ## Simulate what docs/analysis.md claims, RUNS (500) rollouts each, and write its tables and pictures
	@go -C analysis/simulate/report run . -runs $(RUNS)

.PHONY: bench-fast
bench-fast: ## Measure what needs no cluster: table, and out/bench.json (3 minutes; BENCH=regexp selects)
	@go test -run '^$$' -bench '$(BENCH)' -v ./... | go -C hack/bench run . -out $(CURDIR)/out/bench.json

.PHONY: lint
lint: ## Check the house rules (.golangci.yml); the chart is linted by unit
	@for m in $(MODULES); do (cd $$m && $(TOOL) golangci-lint run --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: fmt
fmt: ## Format the code as lint wants it
	@for m in $(MODULES); do (cd $$m && $(TOOL) golangci-lint fmt --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: generate
generate: ## Write generated code and the chart's definitions anew
	@$(TOOL) controller-gen object paths=./api/...
	@$(TOOL) controller-gen crd paths=./api/... output:crd:dir=charts/headgate/crds
# Helm lets an upgrade adopt objects that name the release as their owner (templates/crds.yaml).
	@sed -i '/^    controller-gen.kubebuilder.io\/version:/a\    helm.sh/resource-policy: keep\n    meta.helm.sh/release-name: headgate\n    meta.helm.sh/release-namespace: headgate-system\n  labels:\n    app.kubernetes.io/managed-by: Helm' charts/headgate/crds/*.yaml
# The chart is a module of its own, from which nothing can be embedded.
	@cp charts/headgate/crds/headgate.dev_rolloutpolicies.yaml replay/

.PHONY: verify
verify: ## Fail if generated files, formatting or go.mod files are not up to date
	@hack/verify.sh

.PHONY: image
image: ## Build the images, into .cache/images
	@go -C e2e/cluster run . images
