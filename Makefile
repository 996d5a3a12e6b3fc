# Everything here runs from a fresh clone: each target first makes the environment if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help quickstart test test-long test-failed test-cluster check format docs screenshots clean
.PHONY: bench-damage bench-faults bench-gpu bench-initial-plans bench-judges bench-kills bench-networks bench-noise bench-peers bench-sampler bench-sampler-genes bench-search bench-solvers bench-speed bench-storages bench-tracking bench-training bench-training-speed bench-transfer bench-variants bench-variation surrogate-table

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("stepfront needs Python 3.11 or newer, not %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(READY)  ## train, search, confirm and report on digits
	$(BIN)/stepfront quickstart

PROCESSES ?= 2
test: $(READY)  ## run all tests and print the total time (PROCESSES=2 at once)
	@rm -rf .pytest_cache; start=$$(date +%s); code=0; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder --durations=20 || code=$$?; \
	seconds=$$(($$(date +%s) - start)); echo "make test: $$((seconds / 60)) min $$((seconds % 60)) s in total"; \
	mkdir -p .pytest_cache; echo $$code > .pytest_cache/exit-code; exit $$code

test-long: $(READY)  ## run the long forms of some tests, which `make test` leaves out
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long -n 2 --dist worksteal --durations=20

test-failed: $(READY)  ## run the tests that failed last once more, one at a time
	@test "$$(cat .pytest_cache/exit-code)" = 1 || { echo "the tests did not run to their end"; exit 1; }
	@echo "UNRELIABLE unless it fails again:"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --last-failed --last-failed-no-failures none -p no:xdist -v

test-cluster: $(READY)  ## run a search on a cluster on this machine: several nodes, PostgreSQL, MLflow server, token
	$(BIN)/python -m pytest tests/cluster -m cluster -rs

check: $(READY)  ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## fix imports and layout with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## write the generated pages: docs/settings.md and docs/tables.md
	$(BIN)/python -m stepfront.search.settings_reference > docs/settings.md
	$(BIN)/python -m stepfront.tables > docs/tables.md

bench-variation: $(READY)  ## measure each choice of variation, initial plans and screening
	$(BIN)/python -m benchmarks.variation

bench-initial-plans: $(READY)  ## compare first generations with any number of steps (needs runs/digits)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.initial_plans

bench-sampler-genes: $(READY)  ## compare searches with and without genes for solver and grid (needs runs/digits)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sampler_genes

bench-search: $(READY)  ## measure hypervolume against evaluations per method, on measured plans (minutes, no supernet)
	$(BIN)/python -m benchmarks.search

bench-peers: $(READY)  ## compare the search with its peers on four published tables (an hour and a half, no supernet)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.peers $(addprefix --table ,digits-6 fashion-6 digits-10 digits-20)

surrogate-table: $(READY)  ## fit a surrogate table of bench-peers to evaluated plans (needs runs/digits)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fit_surrogate

bench-storages: $(READY)  ## measure ask and tell with 1,000 genes in every storage
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.storages

bench-tracking: $(READY)  ## measure writing a search to MLflow
	$(BIN)/python -m benchmarks.tracking

bench-speed: $(READY)  ## compare evaluations with bare networks, and searches with their evaluations (needs runs/digits)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed --simulate

bench-training: $(READY)  ## compare trainings at equal network FLOPs, and each width trained alone (hours)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.training

bench-training-speed: $(READY)  ## compare a training step with the first edition's and a bare loop's (minutes; needs git history)
	$(BIN)/python -m benchmarks.training_speed

screenshots: $(READY)  ## take the pictures in docs/screenshots from runs/digits (needs Chromium)
	$(BIN)/python -m benchmarks.screenshots

bench-faults: $(READY)  ## inject faults into real searches (about half an hour)
	$(BIN)/python -m benchmarks.faults

bench-damage: $(READY)  ## damage the files of a search, one fault at a time, and call every verb (about half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.damage

bench-kills: $(READY)  ## interrupt every verb at its file events, and call it again (hours for all of them)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.kills

bench-judges: $(READY)  ## compare feature sets as judges on images with known harm; writes docs/judges.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.judges

DATA ?= ../shared/data/cifar10-jpg/cifar10-jpg.zip
bench-gpu:  ## measure a GPU in 12 minutes: training, engines, FID; needs no environment but torch's (DATA=images)
	PYTHONPATH=src $(PYTHON) -m benchmarks.gpu --data $(DATA)

bench-sampler: $(READY)  ## compare learnt samplers with solvers on hand grids (needs a supernet, such as runs/digits)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.samplers

bench-solvers: $(READY)  ## compare solvers and time grids at full width (needs a supernet, such as runs/digits)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.samplers --only hand --only grid

bench-networks: $(READY)  ## train network families at equal training FLOPs (needs ../shared/data/fashion-mnist)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.networks

bench-noise: $(READY)  ## measure how far FID moves between noise seeds (needs runs/digits)
	$(BIN)/python -m benchmarks.noise

bench-transfer: $(READY)  ## measure what earlier searches are worth, over pairs of surrogate tables (20 minutes, no supernet)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.transfer

bench-variants: $(READY)  ## compare fronts with and without variants of a step (an hour; needs ../shared/data/fashion-mnist)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.step_variants

clean:  ## remove the environment; keep the runs
	rm -rf $(VENV)
