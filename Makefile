PYTHON ?= python3
export VIRTUAL_ENV := $(CURDIR)/.venv
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)

.PHONY: demo test test-slow check lint

demo: .venv/run.txt
	bash scripts/demo.sh

test: lint
	OMP_NUM_THREADS=1 python -m pytest -n 2 -m "not slow and not gpu" --durations=15

test-slow: .venv/dev.txt
	python -m pytest -m "slow and not gpu"

# The inner loop: style, types, and the tests of pure functions.
check: lint
	OMP_NUM_THREADS=1 python -m pytest -n 2 -m "not slow and not gpu" $(PURE)
PURE = tests/test_imports.py tests/config tests/pruner/test_plan.py tests/pruner/test_groups.py \
	tests/pruner/test_schedule_greg.py tests/pruner/test_short_schedule.py tests/data/test_sampler.py

lint: .venv/dev.txt
	ruff check .
	ruff format --check .
	mypy

# A stamp beside each installation, remade when its requirements change.
.venv/run.txt: requirements.txt
	$(PYTHON) -m venv .venv
	python -m pip install --quiet -r $<
	touch $@

.venv/dev.txt: requirements-dev.txt .venv/run.txt
	python -m pip install --quiet -r $<
	touch $@
