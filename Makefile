# Every target is a line or two that a person could type. Start with `make demo`.

PYTHON ?= python3
VENV := .venv/bin

.PHONY: help demo ui test chaos lint audit licences lock bench tables
.DELETE_ON_ERROR:

# Where it is set, every process would compile anew all that it imports, for up to a minute.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo "make demo   run the whole pipeline on the packaged models and text"
	@echo "make ui     open the Dagster UI on the same home"
	@echo "make test   run the tests"
	@echo "make chaos  kill runs, break files, fill disks: the long form of tests/chaos"
	@echo "make lint   run ruff, mypy and import-linter"
	@echo "make audit  ask for known holes in the pinned dependencies"
	@echo "make licences  list every dependency's licence; fails on one that is not allowed"
	@echo "make bench  measure speed, memory and storage; takes about an hour"
	@echo "make tables measure how well students follow the teacher and find unsafe rows; hours"
	@echo "make lock   write requirements.lock again from pyproject.toml"

# The stamp is written last, so an interrupted installation starts again.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "Influcoder needs Python 3.11 or newer; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ..." % v[:2])'
	$(PYTHON) -m venv .venv
	awk '/^[a-z]/ {uv = /^uv==/} uv' requirements.lock > .venv/uv.txt
	$(VENV)/pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(VENV)/uv pip sync --python $(VENV)/python --require-hashes requirements.lock
	$(VENV)/uv pip install --python $(VENV)/python --offline --no-deps --no-build-isolation -e .
	touch .venv/.installed

.PHONY: .venv
.venv: .venv/.installed

demo: .venv/.installed
	$(VENV)/influcoder demo

ui: .venv/.installed
	$(VENV)/influcoder ui

# Files of tests beside each other, a worker more than there are cores, so torch wants no more.
test: .venv/.installed
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

chaos: .venv/.installed
	$(VENV)/python -m pytest tests/chaos --chaos=full --timeout=3600

lint: .venv/.installed
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/mypy
	$(VENV)/lint-imports

audit: .venv/.installed
	$(VENV)/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict

licences: .venv/.installed
	$(VENV)/pip-licenses

bench: .venv/.installed
	$(VENV)/python -m bench speed

tables: .venv/.installed
	$(VENV)/python -m bench tables

# Pins that are in the lock already stay; `uv pip compile --upgrade ...` moves them.
lock: .venv/.installed
	$(VENV)/uv pip compile pyproject.toml --all-extras --group demo --group dev --universal --generate-hashes --python-version 3.11 --no-emit-index-url -o requirements.lock
