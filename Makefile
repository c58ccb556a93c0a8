# Every target sets up what it needs; `make` alone lists them. ARGS go to the verb: make track ARGS="--n 16".
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install track organism organisms test check format

READY := .venv/.installed
PY := .venv/bin/python

# The first interpreter on PATH that is new enough.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY)  ## make .venv with the tested versions
	@echo "ready: $(PY), .venv/bin/emoprobe"

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "emoprobe needs Python 3.11 or newer and found none; try: make install PYTHON=/path/to/python" >&2; exit 2; }
	@test -x .venv/bin/pip || "$(PYTHON)" -m venv .venv
	@echo "installing into .venv (some minutes the first time)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,train]'
	@touch $@

track: $(READY)  ## the main job: curves, transcripts, judgments, summary, report
	@$(PY) -m emoprobe.track $(ARGS)

organism: $(READY)  ## train the model organism and its adapter, one seed
	@$(PY) -m emoprobe.organism --seeds 0 $(ARGS)

organisms: $(READY)  ## train three seeds: the spread in the organism's card
	@$(PY) -m emoprobe.organism --seeds 0 1 2 $(ARGS)

test: check  ## check, then every test
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile $(ARGS)

check: $(READY)  ## formatting, lint, types
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy

format: $(READY)  ## format and mend what lint can mend
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .
