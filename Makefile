# Everything that is run by hand or by CI. "make" alone prints this list.
SHELL := /bin/bash
GO ?= go
LINT_VERSION := v2.15.0
GOTESTSUM_VERSION := v1.13.0
LINT := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
STAGE := @.ci/stage
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
ACTORS ?= 4

# Packages with goroutines that share state, for the race detector. Tests of real
# data sets are left to "unit": they are long and share nothing.
CONCURRENT := ./actor ./bus ./cluster ./learner/... ./node ./policy/lm/... ./policy/tokenizer ./replay/... ./rewardsrv ./rundir ./search

.DEFAULT_GOAL := help
.PHONY: help build test unit race portable lint fresh bench e2e image compose-up compose-down compose-test k8s deploy-check nightly generate fmt ci

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

build: ## build bin/forager, static, for this machine
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/forager ./cmd/forager

test: lint fresh unit deploy-check portable race e2e ## everything that a change must pass, as CI does

unit: ## all tests, the import test among them
	@# It lists what was skipped and why, which "go test" keeps to itself.
	$(STAGE) "tests" $(GO) run gotest.tools/gotestsum@$(GOTESTSUM_VERSION) --format pkgname-and-test-fails --format-hide-empty-pkg -- ./...

race: ## the packages with goroutines, under the race detector
	$(STAGE) "race detector" env -u FORAGER_DATA_DIR $(GO) test -race -short -timeout 15m $(CONCURRENT)

portable: ## other processors: build for arm64, kernels without AVX-512 and without assembly
	$(STAGE) "build for arm64" env GOARCH=arm64 $(GO) build ./...
	$(STAGE) "vet for arm64" env GOARCH=arm64 $(GO) vet ./...
	$(STAGE) "kernels without AVX-512" env GODEBUG=cpu.avx512f=off $(GO) test ./policy/lm/...
	$(STAGE) "kernels in plain Go" env GODEBUG=cpu.avx512f=off,cpu.avx2=off $(GO) test ./policy/lm/...

lint: ## gofmt, go vet and golangci-lint
	$(STAGE) "gofmt" .ci/gofmt
	$(STAGE) "go vet" $(GO) vet ./...
	$(STAGE) "golangci-lint" $(LINT) run

fresh: ## generated files are what their generators write
	$(STAGE) "generated files" .ci/fresh

bench: ## benchmarks of the data plane and the engine
	$(GO) test -run '^$$' -bench . -benchtime 0.5s -benchmem ./batch ./bus ./replay ./cluster ./search ./policy/lm/... ./rewardsrv/...

e2e: ## the real binary: train, kill -9 and resume, one role a process
	$(STAGE) "end to end" $(GO) test -tags e2e -count 1 -timeout 10m -v ./e2e

image: build ## forager:dev from bin/forager, without pulling a base image
	deploy/image.sh bin/forager forager:dev

compose-up: image ## a cluster in containers; ACTORS=4 actors
	$(COMPOSE) up -d --scale actor=$(ACTORS)

compose-down: ## end it; its volumes stay
	$(COMPOSE) down --timeout 50

compose-test: ## start the composition, scale it, end it and start it again; 10 minutes, wants root
	$(STAGE) "composition" deploy/compose-test.sh

k8s: ## write deploy/k8s anew from the Helm chart
	deploy/k8s/render.sh

deploy-check: ## chart, manifests, compose file, alerts and dashboards agree with the program
	@# The cache of tests does not see files outside of their module.
	$(STAGE) "deployment files" $(GO) -C deploy/check test -count 1 ./...

nightly: ## hostile passages against the real judge at FORAGER_JUDGE_URL
	$(STAGE) "hostile passages" $(GO) test -tags nightly -count 1 -timeout 4h -run Hostile -v ./rewardsrv/audit

generate: ## write generated files anew
	$(GO) generate ./cmd/forager/...

fmt: ## format the code
	gofmt -s -w $$(git ls-files '*.go')

ci: ## what CI runs
	.ci/run
