# ORE, the Open Responses Engine. `make help` lists what there is.
#
# Each target sets up what it needs by itself and is quick the second time.
# PYTHON chooses the interpreter (3.11 or later), ARGS goes to the command: make serve ARGS="--port 9000"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
TORCH ?= torch==2.13.0

.DEFAULT_GOAL := help
.PHONY: help install serve test check bench engines lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(VENV)/.dev ## set up .venv with everything that development needs

serve: $(VENV)/.serve ## serve the bundled model at http://127.0.0.1:8000
	$(BIN)/ore serve $(ARGS)

test: $(VENV)/.dev ## run all tests
	$(BIN)/python -m pytest $(ARGS)

engines: $(VENV)/.engines ## add PyTorch, OpenVINO, Candle and scikit-learn to .venv: gigabytes; `make test` then tests them too

check: $(VENV)/.dev ## lint, format, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## run the benchmarks of the engines, beside their own servers, and of ORE as a gateway (half an hour)
	$(BIN)/python -m benchmarks.engine $(ARGS)
	$(BIN)/python -m benchmarks.engines $(ENGINES_ARGS)
	$(BIN)/python -m benchmarks.gateway $(GATEWAY_ARGS)

lock: $(VENV)/.dev ## bring the locked versions up to date
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --no-emit-index-url \
		--no-header --no-annotate --upgrade --quiet -o requirements/dev.lock
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --no-emit-index-url \
		--no-header --no-annotate --upgrade --quiet --constraint requirements/dev.lock -o requirements/serve.lock

# PyTorch brings its own CUDA libraries, or none: TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
$(VENV)/.engines: requirements/engines.lock $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/engines.lock
	@touch $@

clean: ## remove what the other targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "ORE needs Python 3.11 or later; choose one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: requirements/serve.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/serve.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.serve
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/dev.lock
	@touch $@
