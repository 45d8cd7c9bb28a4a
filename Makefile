# `make` alone lists the targets. Each works on a fresh clone by itself: what needs the virtual
# environment depends on its stamp, which is older than the lock file exactly when it is stale.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
# Recipes share one environment and one tree: running them side by side gains nothing.
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# More arguments for the tool behind a target, as in `make test ARGS="-k queue -x"`.
ARGS ?=
TESTS ?= tests/e2e tests/integration tests/unit

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Make .venv with everything in it; does nothing when that is up to date
	@echo "$(VENV) is ready"

$(STAMP): pyproject.toml requirements/dev.txt
	@python=; for each in python3.11 python3 python3.12 python3.13; do \
	  if "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then python=$$each; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11 or newer is needed, and no python3.11 or python3 here is that" >&2; exit 1; fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "Making $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear $(VENV) || { \
	    echo "Making a virtual environment failed; on Debian: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	@echo "Installing the locked requirements (about a minute)"
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt \
	  | sed -u -n 's/^Collecting \([^ ]*\).*/  \1/p'
	@# The build tools are among the locked requirements, hence no isolation, which would fetch
	@# unlocked ones.
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: demo
demo: $(STAMP) ## Run the whole chain on real input
	$(BIN)/factorychain demo $(ARGS)

.PHONY: up
up: $(STAMP) ## Start the chain here; ARGS="--agents my.module --port 8080"
	$(BIN)/factorychain up $(ARGS)

.PHONY: test
test: $(STAMP) ## Run the unit, integration and end-to-end tests; ARGS goes to pytest, TESTS names paths
	$(BIN)/python -m tests $(TESTS) -q $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style, types, layers, protos and that generated code is up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/buf breaking protos --against protos/baseline.binpb
	$(BIN)/python protos/generate.py --check
	$(BIN)/python docs/generate.py --check

.PHONY: format
format: $(STAMP) ## Format the code and fix what can be fixed safely
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: proto
proto: $(STAMP) ## Write the code generated from protos/
	$(BIN)/python protos/generate.py

.PHONY: docs
docs: $(STAMP) ## Write the tables in docs/ that come from the protos and the settings
	$(BIN)/python docs/generate.py

.PHONY: proto-baseline
proto-baseline: $(STAMP) ## Renew what breaking changes are measured against (see protos/README.md)
	$(BIN)/buf build protos --exclude-source-info --output protos/baseline.binpb

# uv resolves for every supported Python and platform at once, which pip's own resolver can't.
# No index is written down: the lock says what, each machine's configuration says from where.
.PHONY: lock
lock: $(STAMP) ## Resolve requirements/*.txt again; ARGS="--upgrade" to move versions
	$(call compile,runtime,pyproject.toml)
	$(call compile,dev,--extra dev pyproject.toml)
	@# What builds the wheel inside the image, in the versions of the dev lock.
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(call compile,build,--constraints requirements/dev.txt -)

compile = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-header --quiet $(ARGS) \
  $(2) --output-file requirements/$(1).txt

.PHONY: bench
bench: $(STAMP) ## Measure latency, throughput and memory beside the raw floor; RPCs against their contracts
	$(BIN)/python -m tests.bench $(ARGS)

RUNS ?= 10000

.PHONY: soak
soak: $(STAMP) ## Run the tests of load in full, and 10,000 runs in processes (12 minutes); RUNS=1000
	FACTORYCHAIN_LOAD=full FACTORYCHAIN_SOAK_RUNS=$(RUNS) $(BIN)/python -m pytest tests/soak tests/e2e tests/integration -m load -q -s $(ARGS)

.PHONY: installations
installations: $(STAMP) ## Check that the chain runs in place, as an editable install and as a wheel
	$(BIN)/python -m pytest tests/installations -q $(ARGS)

SEEDS ?=

.PHONY: chaos
chaos: $(STAMP) ## Break a running chain for 10 minutes and check what users saw; SEEDS=9999 simulates so many before; ARGS="--seconds 60"
	$(if $(SEEDS),$(BIN)/python -m tests.simulation --seeds $(SEEDS))
	$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: simulation
simulation: SEEDS := $(or $(SEEDS),2000)
simulation: $(STAMP) ## Simulate the whole chain with SEEDS=2000 seeds, then find each of the seeded bugs (5 minutes)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)
	$(BIN)/python -m tests.simulation --crash-points --times 5 --seeds $(SEEDS) $(ARGS)
	$(BIN)/python -m tests.simulation --bugs --seeds $(SEEDS) $(ARGS)

.PHONY: faults
faults: $(STAMP) ## Kill and stop one process after the other of a replicated chain, kill at every crash point (15 minutes)
	$(BIN)/python -m pytest tests/faults -q $(ARGS)

.PHONY: containers
containers: $(STAMP) ## Run the tests that need a Docker engine (in a later version)
	@$(call present,tests/containers,containers)
	$(BIN)/python -m pytest tests/containers -q $(ARGS)

.PHONY: images
images: $(STAMP) ## Build the container image
	deploy/build-image $(ARGS)

present = [ -e $(1) ] || { echo "make $(2): not in this version yet ($(1) is missing)" >&2; exit 1; }

.PHONY: wheel
wheel: $(STAMP) ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

.PHONY: clean
clean: ## Remove .venv, caches and builds; a chain's data in .factorychain stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	find factorychain services tests protos -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
