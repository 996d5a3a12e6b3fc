# Everything here runs from a fresh clone: each target makes the environment first if need be.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help quickstart test test-cluster check format clean screenshots
.PHONY: bench-search bench-storages bench-variation bench-tracking bench-faults bench-transfer bench-speed

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("stepfront needs Python 3.11 or newer, not %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(READY)  ## train, search, confirm and report on digits
	$(BIN)/stepfront quickstart

test: $(READY)  ## all tests, 10 minutes at most on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20

test-cluster: $(READY)  ## a search on a real cluster on this machine: several nodes, PostgreSQL, MLflow server, token
	$(BIN)/python -m pytest tests/cluster -m cluster -rs

check: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-variation: $(READY)  ## what each choice of variation, seeds and screening is worth
	$(BIN)/python -m benchmarks.variation

bench-search: $(READY)  ## hypervolume against evaluations, method by method (about an hour the first time)
	$(BIN)/python -m benchmarks.search

bench-storages: $(READY)  ## what ask and tell cost with 1,000 genes, in every storage
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.storages

bench-tracking: $(READY)  ## what writing a search to MLflow costs
	$(BIN)/python -m benchmarks.tracking

bench-speed: $(READY)  ## an evaluation against bare networks, a search against its evaluations (needs runs/digits)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed --simulate

screenshots: $(READY)  ## what an analyst sees, from runs/digits, by Chromium; skipped where there is none
	$(BIN)/python -m benchmarks.screenshots

bench-faults: $(READY)  ## plugs pulled on real searches (about half an hour)
	$(BIN)/python -m benchmarks.faults

bench-transfer: $(READY)  ## what the front on digits is worth on Fashion-MNIST (needs both runs)
	$(BIN)/python -m benchmarks.transfer

clean:  ## remove the environment; runs stay
	rm -rf $(VENV)
