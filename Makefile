# Targets: install, demo, test, test-slow, test-faults, lint, docs, tutorials, bench, bench-all,
# bench-accelerator, clean; `make` lists them.
# Everything runs in .venv beside this file. Each target installs what it needs.

PYTHON ?= python3
PY := .venv/bin/python
UV := $(shell command -v uv 2>/dev/null)
# Two processes; all tests of a file run in one process and share its fixtures.
PYTEST := $(PY) -m pytest -q -n 2 --dist loadfile --durations 25
export PYTHONUNBUFFERED := 1

# uv can install Python. Without uv the Python of this machine is used.
ifdef UV
  MAKE_VENV := test -x $(PY) || uv venv --quiet --python '>=3.11' .venv
  PIP_INSTALL := uv pip install --quiet --python $(PY)
  PIP_UNINSTALL := uv pip uninstall --quiet --python $(PY)
else
  MAKE_VENV := $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv || { \
    echo "error: '$(PYTHON) -m venv' failed: install python3-venv (Debian, Ubuntu) or uv"; exit 1; }
  PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check
  PIP_UNINSTALL := $(PY) -m pip uninstall --quiet --yes
endif
# opencv-python needs libGL, which machines without a display often lack. The headless build does
# not need it. Both install to the same folder, so one is removed before the other is installed.
WITHOUT_DISPLAY := { echo "no libGL here: installing opencv-python-headless"; \
  $(PIP_UNINSTALL) opencv-python && $(PIP_INSTALL) --no-deps --force-reinstall opencv-python-headless; }
define install_with
  @$(PIP_INSTALL) -e '.[$(1)]'
  @$(PY) -c 'import cv2' 2>/dev/null || $(WITHOUT_DISPLAY)
  @touch $@
endef

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

.PHONY: install
install: .venv/.installed  ## create .venv and install the package for demo and tests

# Huge pages save up to a third of a training step on a CPU (docs/performance.md).
demo bench bench-all: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: demo
demo: install  ## train on synthetic scenes and evaluate, 6 to 15 minutes on 2 cores; results in demo/
	$(PY) -m rmpe_jax.experiments.demo --out demo

# Optimizing the small programs of the tests takes longer than running them. XLA stops at a flag
# that it does not know, so the flag is tried first.
QUICK := --xla_cpu_use_fusion_emitters=false
.PHONY: test
test: install  ## run the tests
	@export XLA_FLAGS="$$XLA_FLAGS $(QUICK)" JAX_DISABLE_MOST_OPTIMIZATIONS=1; \
	$(PY) -c 'import jax; jax.devices()' 2>/dev/null || export XLA_FLAGS="$${XLA_FLAGS% *}"; \
	$(PYTEST)

.PHONY: test-slow
test-slow: install  ## run the slow tests
	$(PYTEST) -m slow

.PHONY: test-faults
test-faults: install  ## kill programs, fill disks, damage files, for hours; see docs/reliability.md
	$(PYTEST) -m faults tests/faults

.PHONY: lint
lint: .venv/.installed-dev  ## check style, format and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyrefly check

.PHONY: docs
docs: .venv/.installed-docs  ## build the documentation site into site/; every warning is an error
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

.PHONY: tutorials
tutorials: .venv/.installed-docs  ## run the notebooks of docs/tutorials and save their outputs
	$(PY) docs/run_tutorials.py

.PHONY: bench
bench: install  ## measure speed in 2 minutes, as JSON lines; DATA=coco:FOLDER:SPLIT adds the loader
	@$(PY) benchmarks/machine.py
	@$(PY) benchmarks/startup.py --repeats 3
	@$(PY) benchmarks/predict.py --scenes 16 --repeats 2
	@$(PY) benchmarks/training.py --network litepose_effnet0_s
	@$(PY) benchmarks/ap.py --repeats 3
ifdef DATA
	@$(PY) benchmarks/loader.py --data $(DATA)
endif

# What needs neither data nor an accelerator.
BENCHMARKS := machine networks startup compilation predict estimator training loop depthwise sstn \
  pose_nms ap tracking
.PHONY: bench-all
bench-all: install  ## measure speed and size of everything on a CPU, as JSON lines
	@set -e; for name in $(BENCHMARKS); do $(PY) benchmarks/$$name.py; done

.PHONY: bench-accelerator
bench-accelerator: install  ## measure speed on a GPU or TPU, about 8 minutes; results in runs/accelerator/
	$(PY) benchmarks/accelerator.py --out runs/accelerator --seconds 480

.PHONY: clean
clean:  ## remove caches and build outputs; .venv, demo/ and runs/ stay
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml
	@$(if $(UV),:,$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null) || { \
	  echo "error: needs Python 3.11 or newer, '$(PYTHON)' is $$($(PYTHON) -V 2>/dev/null || echo missing):" \
	    "install it and give its name, as in 'make PYTHON=python3.12', or install uv"; exit 1; }
	@echo "installing into .venv (1.3 GB, a minute or more)"
	@$(MAKE_VENV)
	$(call install_with,test)

.venv/.installed-docs: .venv/.installed
	@echo "installing the tools for the documentation"
	$(call install_with,docs)

.venv/.installed-dev: .venv/.installed
	@echo "installing the tools for lint"
	$(call install_with,dev)
