# IntelGraph: `make demo` shows the whole system on this machine, `make help` lists the rest.

SHELL := /bin/sh
.SHELLFLAGS := -euc
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
GRAPHX := $(VENV)/graphx
BARE_KAFKA := $(VENV)/bare-kafka
LOCK := --universal --generate-hashes --no-emit-index-url --python-version 3.11

# Ray's default depends on a token file in the home folder: say it.
test test-services bench chaos: export RAY_AUTH_MODE := disabled

.PHONY: help setup demo up down test services services-down test-services cluster cluster-down lint format bench graphx bare-kafka chaos lock clean python-as-asked

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r target what; do printf '%-21s %s\n' "$$target" "$$what"; done

setup: $(BIN)/intelgraph ## install the locked dependencies into .venv

demo: setup ## start everything, run the main job on this machine's own software, ask five questions
	@$(BIN)/intelgraph demo

up: setup ## start the system, with the data that is there
	@$(BIN)/intelgraph up

down: setup ## stop the system; the data stays
	@$(BIN)/intelgraph down

test: $(VENV)/.dev ## run all tests but the long fault runs and those that want servers of `make services`
	@$(BIN)/python -m pytest -m "not chaos and not production" -n 2 --no-loadscope-reorder

services: $(VENV)/.dev ## install and start Kafka, Connect, PostgreSQL, Neo4j, Redis, a schema registry and S3 in .services/
	@$(BIN)/python -m services up

services-down: $(VENV)/.dev ## stop them, and remove their data
	@$(BIN)/python -m services down --remove

test-services: $(VENV)/.dev ## run the tests that want such servers; it starts its own
	@$(BIN)/python -m services install || echo "what cannot be installed is skipped" >&2
	@$(MAKE) bare-kafka || echo "the comparison with a bare loop from Kafka is not tried" >&2
	@$(BIN)/python -m pytest -m "production and not chaos"

cluster: $(VENV)/.dev ## make hosts on this machine (network namespaces, as root) and start the system on them with `ray up`
	@$(BIN)/python -m hosts up

cluster-down: $(VENV)/.dev ## stop it, and remove hosts and data
	@$(BIN)/python -m hosts down

lint: $(VENV)/.dev ## ruff, mypy, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## let ruff lay out the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev ## compare speeds with what one would use instead
	@if command -v java >/dev/null; then $(MAKE) graphx || echo "the comparison with GraphX is left out" >&2; fi
	@$(MAKE) bare-kafka || echo "the comparison with a bare loop from Kafka is left out" >&2
	@$(BIN)/python -m bench

graphx: $(GRAPHX)/.setup ## install Spark in an environment of its own, for the comparison with GraphX (wants Java)

bare-kafka: $(BARE_KAFKA)/.setup ## install what the reference loop from Kafka needs in an environment of its own

chaos: $(VENV)/.dev ## the long fault runs, with a report in .chaos/ (ROW=4: those of one row)
	@$(BIN)/python -m pytest -m chaos --timeout 7200 --report=.chaos $(if $(ROW),--row=$(ROW))

lock: $(VENV)/.uv ## resolve dependencies anew, with hashes
	$(BIN)/uv pip compile -q --upgrade $(LOCK) --extra dev pyproject.toml -o requirements-dev.txt
	$(BIN)/uv pip compile -q --upgrade $(LOCK) -c requirements-dev.txt pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile -q --upgrade $(LOCK) --group graphx -o bench/requirements-graphx.txt
	$(BIN)/uv pip compile -q --upgrade $(LOCK) --group bare-kafka -o bench/requirements-bare-kafka.txt

clean: ## remove caches; .venv and data stay
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info

# --- what the targets rest on ---

# The first Python from 3.11 to 3.13 that can make a virtual environment; PYTHON=... chooses one. Where there was an
# environment, its Python has gone: everything in it is installed anew, though make has seen that it was there.
$(BIN)/python:
	@for python in $${PYTHON:-python3 python3.13 python3.12 python3.11}; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$python" --version)"; again=$$(ls $(VENV)/.uv 2>/dev/null || true); \
	    "$$python" -m venv $${again:+--clear} $(VENV); if [ -n "$$again" ]; then $(MAKE) setup; fi; exit; \
	  fi; \
	done; \
	echo "IntelGraph needs Python 3.11, 3.12 or 3.13 with the venv module (Debian: apt install python3 python3-venv)." >&2; \
	echo "If one is elsewhere: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1

# An environment keeps the Python that it was made with.
ifeq ($(origin PYTHON),command line)
setup: | python-as-asked
endif
python-as-asked:
	@if [ -x $(BIN)/python ]; then \
	  version='import sys; print(*sys.version_info[:2], sep=".")'; \
	  asked=$$("$(PYTHON)" -c "$$version"); found=$$($(BIN)/python -c "$$version"); \
	  if [ "$$asked" != "$$found" ]; then \
	    echo "$(VENV) has Python $$found, and PYTHON names $$asked: remove $(VENV) first; the data is not in it." >&2; exit 1; \
	  fi; \
	fi

$(VENV)/.uv: requirements-uv.txt | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-uv.txt
	@touch $@

# uv knows nothing of pip's settings: where they name an index or a certificate, they hold for both.
define as_pip
pip_setting() { $(BIN)/python -m pip config list 2>/dev/null | sed -n "s/^[^=]*\.$$1='\(.*\)'$$/\1/p" | head -n 1; }; \
index=$$(pip_setting index-url); if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}"; fi; \
cert=$$(pip_setting cert); if [ -n "$$cert" ]; then export SSL_CERT_FILE="$${SSL_CERT_FILE:-$$cert}"; fi
endef
install = $(as_pip); $(BIN)/uv pip install --python $(BIN)/python --require-hashes --only-binary :all: --compile-bytecode -r

$(VENV)/.setup: requirements.txt $(VENV)/.uv
	@echo "installing the locked dependencies (about 1.5 GB the first time)"
	@$(install) requirements.txt
	@touch $@

# The guard is for worker processes that are spawned: they import this file again.
$(BIN)/intelgraph: Makefile $(VENV)/.setup
	@$(BIN)/python -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "intelgraph.pth").write_text(str(pathlib.Path.cwd()) + "\n")'
	@printf '%s\n' '#!/bin/sh' "'''exec' \"\$$(dirname \"\$$(readlink -f \"\$$0\")\")/python\" \"\$$0\" \"\$$@\"" "' '''" \
	  'if __name__ == "__main__":' '    from serve_apps.cli.main import main' '' '    main()' > $@
	@chmod 755 $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.setup | $(BIN)/intelgraph
	@$(install) requirements-dev.txt
	@touch $@

$(BARE_KAFKA)/.setup: bench/requirements-bare-kafka.txt $(VENV)/.uv
	@$(BIN)/python -m venv --without-pip --clear $(BARE_KAFKA)
	@$(as_pip); $(BIN)/uv pip install -q --python $(BARE_KAFKA)/bin/python --require-hashes --only-binary :all: -r $<
	@touch $@

# Spark comes as sources only. What they are built with is locked too, so they are built with that.
$(GRAPHX)/.setup: bench/requirements-graphx.txt $(VENV)/.uv
	@echo "installing Spark into $(GRAPHX) (about 450 MB the first time)"
	@$(BIN)/python -m venv --without-pip --clear $(GRAPHX)
	@$(as_pip); $(BIN)/uv pip install --python $(GRAPHX)/bin/python --require-hashes --only-binary :all: \
	  --no-binary pyspark --no-build-isolation-package pyspark -r bench/requirements-graphx.txt
	@touch $@
