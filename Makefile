# Everything a fresh machine needs: Python 3.11 or later, make, and a package index.
#
#   make demo     the main job: real prompts answered from sparse checkpoints (about two minutes)
#   make test     the whole test suite
#   make check    what CI runs before the tests: lint, format, types, layers
#   make bench    the numbers the README quotes, one command each in benchmarks/

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
# The tested version; another one: make demo TORCH='torch>=2.9'
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test check bench clean

help:
	@sed -n '2,7s/^# \{0,1\}//p' Makefile

$(VENV)/torch.stamp: Makefile
	@echo "Making $(VENV) with $$($(PYTHON) --version) and $(TORCH)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Milepost needs Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet '$(TORCH)'
	@touch $@

$(VENV)/demo.stamp: pyproject.toml $(VENV)/torch.stamp
	@echo "Installing milepost[transformers,report]"
	@$(PIP) install --quiet --editable '.[transformers,report]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml $(VENV)/torch.stamp
	@echo "Installing milepost[dev]"
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/demo.stamp

demo: $(VENV)/demo.stamp
	@$(BIN)/milepost demo

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest -n auto

check: $(VENV)/dev.stamp
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) report .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
