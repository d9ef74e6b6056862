# Every job of this repository. Needs Debian (12 or later) with make, and root or sudo for missing packages.

PYTHON ?= python3
BIN := .venv/bin
CODE := guestwire collectors publishers status_writer api lab bench tests examples
BENCH ?= latency
MINUTES ?= $(if $(CI),1,10)

.DEFAULT_GOAL := help
.PHONY: help demo soak test check test-compose bench screenshots fuzz lab schema requirements format system clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: lab ## the whole pipeline on a real guest, explained as it happens (KEEP=1 leaves it running)
	@KEEP=$(KEEP) $(BIN)/python -m lab demo

soak: lab ## the pipeline under change and random faults, compared with the truth (MINUTES=10 SEED=)
	@$(BIN)/python -m lab.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

test: lab ## every test but the container images; a part that is missing fails
	@LAB_REQUIRE=all $(BIN)/python -m pytest --ignore tests/compose $(ARGS)

test-compose: lab ## build the container images and run compose.yaml for real
	@sh lab/install-packages.sh lab/packages-containers.txt
	@LAB_REQUIRE=all $(BIN)/python -m pytest tests/compose $(ARGS)

check: .venv/ready ## formatting, lints, types, dependency direction, schema drift
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy --no-error-summary $(CODE)
	@$(BIN)/pyright --warnings
	$(BIN)/lint-imports --no-logo
	$(BIN)/guestwire schema --check schema

bench: lab ## run one benchmark: make bench BENCH=latency
	@$(BIN)/python -m bench.$(BENCH) $(ARGS)

screenshots: .venv/ready ## take the live page's pictures in docs/ anew (ARGS="--all --into /tmp": more of them)
	@$(BIN)/python -m lab.screenshots $(ARGS)

lab: .venv/ready ## build the lab's parts into its cache (about 5 minutes, once)
	@$(BIN)/python -m lab build

fuzz: .venv/ready ## coverage-guided fuzzing of the parsers of agent replies (ARGS="--runs 1000000")
	@$(BIN)/python -m tests.fuzz.fuzz_agent_replies $(ARGS)

format: .venv/ready ## format the code and mend what ruff can
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet

schema: .venv/ready ## write the published JSON Schemas
	$(BIN)/guestwire schema --write schema

requirements: .venv/ready ## pin requirements/*.txt anew from pyproject.toml
	for extra in collector status-writer api export up dev; do \
	  $(BIN)/uv pip compile -q pyproject.toml --extra $$extra --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-emit-package guestwire --no-emit-package guestwire-stages --no-header --no-annotate \
	    -o requirements/$$extra.txt || exit 1; \
	done
	echo 'setuptools>=77' | $(BIN)/uv pip compile -q - --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate -o requirements/build.txt

system: ## install the Debian packages that are missing
	@sh lab/install-packages.sh

clean: ## remove what was built here (not the lab's cache)
	rm -rf .venv build stages/build dist *.egg-info stages/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/ready: requirements/dev.txt pyproject.toml stages/pyproject.toml lab/packages.txt
	@sh lab/install-packages.sh
	@echo "installing Python packages into .venv (about a minute, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e stages
	@touch $@
