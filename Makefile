# Every target works from a fresh clone on a Debian machine with python3 (3.11 or newer), go and make.
# `make` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON := $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
BIN := .venv/bin

# A stamp's name says what it was made from, so neither a checkout nor a clock causes a rebuild.
hash = $(shell cat $(1) 2>/dev/null | sha256sum | cut -c1-16)
DOCS_VENV := .venv/docs-$(call hash,pyproject.toml constraints.txt)
VENV := .venv/stamp-$(call hash,pyproject.toml constraints.txt)
go_stamp = .tools/stamps/$(1)-$(call hash,$(2)/go.mod $(2)/go.sum $(wildcard $(2)/*.go))
BUILDKIT := $(call go_stamp,buildkit,tests/tools/buildkit)
BUILDKIT_V0_13 := $(call go_stamp,buildkit-v0.13,tests/tools/buildkit-v0.13)
H2SPEC := $(if $(wildcard tests/tools/h2spec/go.mod),$(call go_stamp,h2spec,tests/tools/h2spec))
COG := $(call go_stamp,cog,tests/tools/cog)
DOCKER := $(call go_stamp,docker,tests/tools/docker)
ORACLE := $(if $(wildcard tests/oracle/go.mod),$(call go_stamp,oracle,tests/oracle))
ORACLE_LLB := $(call go_stamp,llb-oracle,tests/oracle_llb)

# Without cgo the programs need no C compiler, here or on a bare machine.
GO_BUILD = CGO_ENABLED=0 go build -trimpath -buildvcs=false
GO_BUILD_LINKED = CGO_ENABLED=1 go build -trimpath -buildvcs=false -ldflags '-s -w'
# Says what goes wrong, not what is downloaded.
QUIETLY = 2> >(grep -v '^go: downloading ' >&2)
# An older Go does not fetch by itself the newer one that a module asks for.
GO_MINIMUM := 1.21
define require_go
	@have=$$(go env GOVERSION 2>/dev/null | sed 's/^go//' || true); \
	test "$$(printf '%s\n' $(GO_MINIMUM) "$${have:-0}" | sort -V | head -1)" = $(GO_MINIMUM) || { \
		echo "Go $(GO_MINIMUM) or newer is needed to build the tools; in PATH is $${have:-none}" >&2; exit 1; }
endef
PYTEST = $(BIN)/pytest
# Each process has daemons of its own, so a file is the smallest share.
ON_EACH_CORE = --numprocesses=2 --dist=loadfile

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9_-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---------------------------------------------------------------------------------------------- what everything needs

.PHONY: venv
venv: $(VENV) ## the virtual environment .venv, with cogkit and all it is developed with

$(VENV): | .venv/bin/python
	@echo "installing cogkit's dependencies into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@rm -f .venv/stamp-* && touch $@

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "cogkit needs Python 3.11 or newer, and there is none in PATH" >&2; exit 1; }
	@tests/tools/debian-packages.sh venv $(PYTHON)
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

.PHONY: tools
tools: debian-packages $(BUILDKIT) $(BUILDKIT_V0_13) $(H2SPEC) $(COG) $(ORACLE) $(ORACLE_LLB) $(DOCKER) ## the real programs to test with, in .tools (buildkitd and buildctl built from source)

.PHONY: debian-packages
debian-packages: # runc, docker-registry and the like, from Debian; asks apt only when one is missing
	@tests/tools/debian-packages.sh real

$(BUILDKIT): BUILDKIT_VERSION = v0.32.2
$(BUILDKIT):
	$(require_go)
	@echo "building buildkitd and buildctl $(BUILDKIT_VERSION) (minutes, once)"
	@mkdir -p .tools/bin .tools/stamps
	@cd tests/tools/buildkit && $(GO_BUILD) \
		-ldflags '-s -w -X github.com/moby/buildkit/version.Version=$(BUILDKIT_VERSION)' -o $(CURDIR)/.tools/bin/ \
		github.com/moby/buildkit/cmd/buildkitd github.com/moby/buildkit/cmd/buildctl \
		github.com/moby/buildkit/frontend/dockerfile/cmd/dockerfile-frontend $(QUIETLY)
	@rm -f .tools/stamps/buildkit-[0-9a-f]* && touch $@

# One go build at a time: two would only take each other's cores and memory.
$(BUILDKIT_V0_13): BUILDKIT_VERSION = v0.13.2
$(BUILDKIT_V0_13): | $(BUILDKIT)
	$(require_go)
	@echo "building buildkitd and buildctl $(BUILDKIT_VERSION) (minutes, once)"
	@mkdir -p .tools/v0.13 .tools/stamps
	@cd tests/tools/buildkit-v0.13 && $(GO_BUILD) \
		-ldflags '-s -w -X github.com/moby/buildkit/version.Version=$(BUILDKIT_VERSION)' -o $(CURDIR)/.tools/v0.13/ \
		github.com/moby/buildkit/cmd/buildkitd github.com/moby/buildkit/cmd/buildctl $(QUIETLY)
	@rm -f .tools/stamps/buildkit-v0.13-* && touch $@

ifneq ($(H2SPEC),)
$(H2SPEC): | $(BUILDKIT_V0_13)
	$(require_go)
	@echo "building h2spec"
	@mkdir -p .tools/bin .tools/stamps
	@cd tests/tools/h2spec && $(GO_BUILD) -o $(CURDIR)/.tools/bin/h2spec github.com/summerwind/h2spec/cmd/h2spec $(QUIETLY)
	@rm -f .tools/stamps/h2spec-* && touch $@
endif

$(COG): | $(BUILDKIT_V0_13) $(H2SPEC)
	$(require_go)
	@echo "building cog v0.22.0"
	@mkdir -p .tools/bin .tools/stamps
	@cd tests/tools/cog && $(GO_BUILD) -ldflags '-s -w' -o $(CURDIR)/.tools/bin/cog github.com/replicate/cog/cmd/cog $(QUIETLY)
	@rm -f .tools/stamps/cog-* && touch $@

ifneq ($(ORACLE),)
$(ORACLE): | $(BUILDKIT_V0_13)
	$(require_go)
	@echo "building the oracle of fsutil and patternmatcher"
	@mkdir -p .tools/bin .tools/stamps
	@cd tests/oracle && $(GO_BUILD) -o $(CURDIR)/.tools/bin/oracle . $(QUIETLY)
	@rm -f .tools/stamps/oracle-* && touch $@
endif

$(ORACLE_LLB): | $(BUILDKIT_V0_13)
	$(require_go)
	@echo "building the oracle of LLB"
	@mkdir -p .tools/bin .tools/stamps
	@cd tests/oracle_llb && $(GO_BUILD) -o $(CURDIR)/.tools/bin/oracle-llb . $(QUIETLY)
	@rm -f .tools/stamps/llb-oracle-* && touch $@

# A whole Docker engine.  dockerd and runc link Debian's libraries, so these two need a C compiler.
$(DOCKER): | debian-packages $(BUILDKIT_V0_13)
	$(require_go)
	@echo "building a Docker engine: dockerd, containerd and runc (minutes, once)"
	@mkdir -p .tools/docker .tools/stamps
	@cd tests/tools/docker && $(GO_BUILD) -ldflags '-s -w' -o $(CURDIR)/.tools/docker/ \
		-tags no_btrfs,no_zfs,no_devmapper,no_cri \
		github.com/containerd/containerd/v2/cmd/containerd \
		github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 $(QUIETLY)
	@cd tests/tools/docker && $(GO_BUILD_LINKED) -tags seccomp -o $(CURDIR)/.tools/docker/ \
		github.com/opencontainers/runc $(QUIETLY)
	@cd tests/tools/docker && $(GO_BUILD_LINKED) -o $(CURDIR)/.tools/docker/ \
		github.com/moby/moby/v2/cmd/dockerd $(QUIETLY)
	@rm -f .tools/stamps/docker-[0-9a-f]* && touch $@

# -------------------------------------------------------------------------------------------------------------- checks

.PHONY: lint
lint: $(VENV) ## ruff, and that generated files are what `make protos` makes
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "some files are not formatted; run: .venv/bin/ruff format" >&2; exit 1; }
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; $(BIN)/python protos/generate.py "$$fresh"; \
	diff --brief --recursive --exclude=__pycache__ cogkit/_proto "$$fresh" \
		|| { echo "cogkit/_proto is not what protos/ makes; run: make protos" >&2; exit 1; }

.PHONY: types
types: $(VENV) ## mypy --strict, for Linux and for macOS
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/mypy --no-error-summary --platform darwin cogkit

# What touches files in ways that only Linux has, and in others elsewhere.
PORTABLE = $(addprefix tests/unit/,test_atomic_file.py test_output_file.py oci project/test_dotcog.py weights \
	buildkit/fsutil buildkit/test_exports.py)

.PHONY: test
test: lint types tools ## everything: lint, types, all tests, and the end-to-end tests again on the oldest BuildKit
	$(PYTEST) $(ON_EACH_CORE) --durations=10 --ignore=tests/faults
	COGKIT_TEST_PORTABLE=1 $(PYTEST) $(ON_EACH_CORE) $(PORTABLE)
	COGKIT_FAULTS=200 $(PYTEST) $(ON_EACH_CORE) tests/faults
	COGKIT_TEST_BUILDKITD=v0.13 $(PYTEST) $(ON_EACH_CORE) tests/e2e

.PHONY: test-unit
test-unit: $(VENV) ## the tests that need nothing but Python
	@$(PYTEST) tests/unit

.PHONY: test-e2e
test-e2e: $(VENV) tools ## the tests against a real buildkitd and registry
	@$(PYTEST) tests/e2e

.PHONY: faults
faults: $(VENV) tools ## builds that meet a fault: make faults N=1000 SEED=7, one of them again with ONLY=421
	@COGKIT_FAULTS=$(N) COGKIT_FAULTS_SEED=$(SEED) COGKIT_FAULTS_ONLY=$(ONLY) $(PYTEST) tests/faults/test_faults.py

.PHONY: llb
llb: $(VENV) $(ORACLE_LLB) ## random LLB graphs against Go's library: make llb N=5000 SEED=7
	@COGKIT_LLB_GRAPHS=$(N) COGKIT_LLB_SEED=$(SEED) $(PYTEST) tests/conformance/test_llb_oracle.py

.PHONY: fuzz
fuzz: $(VENV) ## atheris on the protocol code: make fuzz SECONDS=600 (for each target)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[fuzz]'
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(TARGET)

# ------------------------------------------------------------------------------------------------------------- to look at

.PHONY: demo
demo: $(VENV) debian-packages $(BUILDKIT) ## build examples/hello on a private buildkitd and run it there
	@$(BIN)/python -m tests.real.demo

.PHONY: bench
bench: $(VENV) debian-packages $(BUILDKIT) $(DOCKER) ## cogkit beside buildctl, fails when it got slower (as root; 20 minutes); see benchmarks/README.md
	@$(BIN)/python -m benchmarks.bench $(BENCH)

.PHONY: docs
docs: $(VENV) $(DOCS_VENV) ## the documentation site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

$(DOCS_VENV): | $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@rm -f .venv/docs-* && touch $@

.PHONY: dist
dist: $(VENV) ## the wheel and the source archive, in dist/
	@rm -rf dist && $(BIN)/python -m build --no-isolation --outdir dist . >/dev/null && ls dist

.PHONY: protos
protos: $(VENV) ## generate cogkit/_proto from protos/
	@$(BIN)/python protos/generate.py

.PHONY: constraints
constraints: ## renew constraints.txt: the newest versions that pyproject.toml allows
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; $(PYTHON) -m venv "$$fresh"; \
	"$$fresh/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs,fuzz]'; \
	{ echo "# The exact versions that cogkit is tested with; made by \`make constraints\`."; \
	"$$fresh/bin/python" -m pip freeze --exclude-editable --exclude pip --exclude setuptools; } > "$$fresh/list"; \
	cp "$$fresh/list" constraints.txt

.PHONY: clean
clean: ## remove what was made here, but for .tools (rm -rf .tools takes that away too)
	@rm -rf .venv .cache site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.tools/*' -prune -exec rm -rf {} +
