PYTHON ?= python3
export VIRTUAL_ENV := $(CURDIR)/.venv
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)

.PHONY: demo test test-slow lint

demo: .venv/run.txt
	bash scripts/demo.sh

test: lint
	OMP_NUM_THREADS=1 python -m pytest -n 2 -m "not slow and not gpu"

test-slow: .venv/dev.txt
	python -m pytest -m "slow and not gpu"

lint: .venv/dev.txt
	ruff check .
	ruff format --check .

# A stamp beside each installation, remade when its requirements change.
.venv/run.txt: requirements.txt
	$(PYTHON) -m venv .venv
	python -m pip install --quiet -r $<
	touch $@

.venv/dev.txt: requirements-dev.txt .venv/run.txt
	python -m pip install --quiet -r $<
	touch $@
