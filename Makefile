# Everything here needs only Python 3.11 or newer and make; the rest is installed into .venv, the first time it is needed.
# Another Python:  make test PYTHON=python3.13.   More arguments:  make test ARGS="-k claim".   The slow ones too, as CI:  make test SLOW=yes

PYTHON ?= python3
ARGS ?=
SLOW ?=

VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed
COLLECTED := $(VENV)/.tests-collected
# Hundreds of tests start processes: they may keep their bytecode, whatever the environment says.
KEEPING_BYTECODE := PYTHONDONTWRITEBYTECODE=
PIP_INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-fast test-timing check sql bench recording pictures vendor clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(CORE) ## real jobs on a fresh SQLite file: workers, a kill -9, results, statistics
	$(BIN)/jobqueue demo $(ARGS)

# The slow tests (random histories, browsers, the programs of the pages and examples, the demo, long outages) are one of sixteen and
# take more than a third of the time.
MARKED := $(if $(SLOW),,-m "not timing and not slow")

test: $(COLLECTED) ## the tests, on SQLite and on a real PostgreSQL (from a wheel; nothing to set up); with SLOW=yes the slow ones too
	$(KEEPING_BYTECODE) PYTHONHASHSEED=0 $(BIN)/python -m pytest -n 5 --dist worksteal $(MARKED) $(ARGS)

test-fast: $(DEV) ## the same, on SQLite only
	$(BIN)/python -m pytest --backend sqlite $(MARKED) $(ARGS)

test-timing: $(DEV) ## the tests that measure time, which need a quiet machine; .ci/run leaves them out
	$(BIN)/python -m pytest -m timing $(ARGS)

check: $(DEV) ## lint, format, types, architecture, prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py tests/test_prose.py

sql: $(DEV) ## rewrite the golden SQL files from the statements
	$(BIN)/python -m pytest tests/store/test_golden_sql.py --rewrite-golden

bench: $(DEV) ## measure throughput and latency on this machine
	$(BIN)/python -m bench $(ARGS)

recording: $(CORE) ## record the demo as docs/demo.svg, a picture in README.md
	$(BIN)/python docs/record.py

pictures: recording $(DEV) ## the recording, docs/top.svg, and the dashboard in a headless Chromium: docs/dashboard.png
	$(BIN)/python docs/picture.py

vendor: $(CORE) ## fetch the browser libraries that the dashboard ships, at the versions of vendor.toml
	$(BIN)/python docs/vendor.py

clean: ## delete caches and build products (.venv stays: rm -rf .venv)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# A .venv whose Python is gone (the folder was moved, the Python upgraded) is made anew.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "jobqueue needs Python 3.11 or newer, and '$(PYTHON)' is not: make ... PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "'$(PYTHON)' cannot make virtual environments: install its venv package (Debian: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)

# The core alone is enough to run; the development tools contain it.
$(CORE): pyproject.toml $(BIN)/python
	@echo "installing jobqueue into $(VENV) ..."
	@$(PIP_INSTALL) -e .
	@touch $@

$(DEV): pyproject.toml $(BIN)/python
	@echo "installing jobqueue and its development tools into $(VENV) ..."
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $(CORE) $@

# Whoever first imports a test file rewrites its asserts, which takes two thirds of a collection: each of five processes would do it
# for all files. (A file that cannot be collected is reported by the run itself.)
$(COLLECTED): $(DEV) $(shell find jobqueue tests -name '*.py')
	@$(KEEPING_BYTECODE) $(BIN)/python -m pytest --collect-only -q tests/[a-s]*/ >/dev/null & \
	$(KEEPING_BYTECODE) $(BIN)/python -m pytest --collect-only -q tests/[t-z]*/ tests/test_*.py >/dev/null; wait
	@touch $@
