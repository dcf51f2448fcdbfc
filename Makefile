# Everything that is done to this project, one target each. `make help` lists them.
#
# Each target prepares what it needs: system packages (by apt, where there is apt), .venv, the compiled core.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := build/stamps
IMAGE ?= cherokee-app
PORT ?= 8080
FUZZ_SECONDS ?= 60
JOBS ?= $(shell expr $$(nproc) + 1)
SANITIZERS := address,undefined
SANITIZED := build/sanitize

CORE_C := $(shell find appserver/core -name '*.c' -o -name '*.h') appserver/core/build.py
FORMATTED := $(shell find appserver/core tests/core tests/fuzz bench -name '*.[ch]' 2>/dev/null)

.PHONY: help
help: ## list the targets
	@echo "cherokee-app: make TARGET"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 20

.PHONY: run
run: build ## build, then serve the demo on http://localhost:8080 (PORT=...)
	@CHEROKEE_CGI_USER=$$(id -un) exec $(BIN)/cherokee-app serve --config deploy/demo.yaml --listen 0.0.0.0:$(PORT)

.PHONY: build
build: $(STAMPS)/core ## .venv with the compiled core and the command cherokee-app

$(STAMPS)/system: deploy/system-packages.sh
	@deploy/system-packages.sh build
	@mkdir -p $(@D) && touch $@

$(STAMPS)/venv: $(STAMPS)/system pyproject.toml setup.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the Python packages into $(VENV)"
	@$(BIN)/pip install -q --disable-pip-version-check 'setuptools>=77' wheel 'cffi>=2.0'
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e '.[test,check]'
	@mkdir -p $(@D) && touch $@

$(STAMPS)/core: $(STAMPS)/venv $(CORE_C)
	@echo "compiling the core"
	@$(BIN)/python setup.py -q build_ext --inplace --build-temp build/core
	@touch $@

.PHONY: test
test: build ## run all tests, JOBS at a time (ARGS=... for pytest; JOBS=0: in one process)
	@deploy/system-packages.sh test
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

.PHONY: test-sanitize
test-sanitize: build ## the functional tests, or those in ARGS, with the core under address and undefined-behaviour sanitizers
	@deploy/system-packages.sh test
	@mkdir -p $(SANITIZED)
	@rm -rf $(SANITIZED)/tree && mkdir -p $(SANITIZED)/tree
	@tar -c --exclude=./.git --exclude=./.venv --exclude=./build --exclude="*.so" --exclude="*.egg-info" . | tar -x -C $(SANITIZED)/tree
	@cd $(SANITIZED)/tree && CHEROKEE_SANITIZE=$(SANITIZERS) $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace --build-temp ../core
	@cd $(SANITIZED)/tree && CHEROKEE_SANITIZE=$(SANITIZERS) PYTHONPATH=$$PWD \
	    $(CURDIR)/$(BIN)/python -m pytest -n $(JOBS) $(if $(filter tests/%,$(ARGS)),,tests/functional) $(ARGS)

.PHONY: fuzz
fuzz: build ## libFuzzer on each parser (FUZZ_SECONDS=60 for each; ARGS=names of targets)
	@deploy/system-packages.sh fuzz
	@$(BIN)/python tests/fuzz/targets.py $(FUZZ_SECONDS) $(ARGS)

.PHONY: check
check: build ## lint, types, compiler warnings as errors, C formatting
	@echo "ruff" && $(BIN)/ruff check -q . && $(BIN)/ruff format -q --check .
	@echo "mypy" && $(BIN)/mypy --no-error-summary
	@echo "gcc -Werror" && $(BIN)/python appserver/core/build.py sources | tr ' ' '\n' | \
	    xargs -P 2 -I{} gcc $$($(BIN)/python appserver/core/build.py cflags) -Werror -fsyntax-only {}
	@echo "clang-format" && $(BIN)/clang-format --dry-run -Werror $(FORMATTED)

.PHONY: format
format: build ## put C and Python into the project's format
	@$(BIN)/ruff check -q --fix . && $(BIN)/ruff format -q . && $(BIN)/clang-format -i $(FORMATTED)

.PHONY: image
image: ## build the container image cherokee-app (IMAGE=...)
	@version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' appserver/__init__.py) && \
	    docker build -q -t $(IMAGE) --build-arg VERSION=$$version . >/dev/null
	@docker image inspect -f '{{index .RepoTags 0}} {{.Size}} bytes' $(IMAGE)

.PHONY: bench
bench: build $(STAMPS)/peers ## measure against nginx, lighttpd, h2o, granian, bjoern and others (ARGS=...)
	@$(BIN)/python bench/run.py $(ARGS)

$(STAMPS)/peers: deploy/system-packages.sh
	@deploy/system-packages.sh bench
	@$(PYTHON) -m venv build/bench/venv
	@for peer in 'granian>=2' gunicorn 'uvicorn[standard]' bjoern uwsgi flask django 'legacy-cgi; python_version >= "3.13"'; do \
	    build/bench/venv/bin/pip install -q --disable-pip-version-check "$$peer" || echo "cannot be installed: $$peer"; \
	done
	@$(BIN)/pip install -q --disable-pip-version-check matplotlib
	@mkdir -p $(@D) && touch $@

.PHONY: clean
clean: ## remove everything that was built
	rm -rf build $(VENV) *.egg-info appserver/native/_core.c appserver/native/*.so
