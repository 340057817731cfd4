# The commands of this project. Every target that needs the environment makes it first, from requirements.lock, in .venv.
# Needed on the machine: Python 3.11 or newer, make, a package registry. Written outside this folder: nothing but the
# package cache of uv or pip.

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test check format bench lock clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS := 2 # test processes

# uv from the PATH, or bootstrapped into .uv; it must not fetch a Python of its own.
UV = $(shell command -v uv || echo .uv/bin/uv)
export UV_PYTHON_DOWNLOADS := never
export VIRTUAL_ENV := $(CURDIR)/$(VENV)

# The tools' own caches stay in the checkout.
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/cache/matplotlib
export TORCHINDUCTOR_CACHE_DIR := $(CURDIR)/$(VENV)/cache/inductor
export TRITON_CACHE_DIR := $(CURDIR)/$(VENV)/cache/triton
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# The first interpreter that is new enough; override with `make PYTHON=/path/to/python setup`.
NEW_ENOUGH := import sys; sys.version_info >= (3, 11) or sys.exit(1)
PYTHON = $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c '$(NEW_ENOUGH); print(sys.executable)' 2>/dev/null && exit; done; \
	uv python find --no-project '>=3.11' 2>/dev/null)

# A venv needs pip inside it, which some systems split off; --target needs pip outside.
FIND_UV = command -v $(UV) >/dev/null || { echo "crossgrain: no uv on the PATH, putting one into .uv"; \
	rm -rf .uv; { "$(PYTHON)" -m venv .uv && .uv/bin/python -m pip install --quiet uv; } \
	|| { rm -rf .uv; "$(PYTHON)" -m pip install --quiet --target .uv uv; }; } || true

# Both install exactly the lock and then the package itself, whose build backend is in the lock: nothing else is fetched.
FILL_WITH_UV = { test -x $(BIN)/python || $(UV) venv --quiet --python "$(PYTHON)" $(VENV); } \
	&& $(UV) pip sync --require-hashes requirements.lock \
	&& $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
FILL_WITH_PIP = "$(PYTHON)" -m venv --clear $(VENV) \
	&& $(BIN)/python -m pip install --require-hashes --requirement requirements.lock \
	&& $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "make %-11s %s\n", $$1, $$2 }'

setup: $(READY) ## make the environment in .venv, with .venv/bin/crossgrain

quickstart: $(READY) ## draw the embedded data, pre-train, evaluate, report [OUT=DIR] [ARGS="key=value ..."]
	$(BIN)/crossgrain quickstart $(if $(OUT),--out $(OUT)) $(ARGS)

test: $(READY) ## run the tests [ARGS="tests/test_rules.py -k lock"] [JOBS=N]
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

check: $(READY) ## everything that must hold before a merge: format, lint, types, import layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache
	@$(MAKE) --no-print-directory test

format: $(READY) ## format the code and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## measure the training step [ARGS="..."]
	$(BIN)/python benchmarks/train_step.py $(ARGS)

lock: ## pin the dependencies of pyproject.toml anew [ARGS="--upgrade"]
	@$(FIND_UV)
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 --fork-strategy fewest \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		--quiet --output-file requirements.lock $(ARGS)

clean: ## remove the environment and all caches, never the runs
	rm -rf $(VENV) .uv .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || { echo "crossgrain needs Python 3.11 or newer;" \
		"name one: make PYTHON=/path/to/python setup" >&2; exit 2; }
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || rm -rf $(VENV)
	@$(FIND_UV)
	@echo "crossgrain: filling $(VENV) from requirements.lock (5 GB on Linux, where torch brings CUDA)"
	@$(FILL_WITH_UV) || { echo "crossgrain: uv could not do it, trying pip"; $(FILL_WITH_PIP); }
	@touch $@
