# Each goal sets up what it needs in .venv, once; only python3 >= 3.11 has to be there.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test matrix eval chaos lint audit

help:
	@echo "make demo   the whole job on a small real data set; writes report.html"
	@echo "make test   the environment, then every quick test and docstring example"
	@echo "make matrix every odd log with every model under every protocol, and 200 examples of each invariant"
	@echo "make eval   the slow tests on full-size real data (GREYSHEEP_DATA); ONLY=yelp: those of that name"
	@echo "make chaos  damaged and hostile folders, full disks, processes killed at random moments (an hour); writes docs/results/chaos.md"
	@echo "make lint   ruff, mypy, import-linter and bandit"
	@echo "make audit  known vulnerabilities of what is installed in .venv (asks pypi.org)"

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "greysheep needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/stamp-demo: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[report]'
	@touch $@

.venv/stamp-dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ .venv/stamp-demo

demo: .venv/stamp-demo
	$(BIN)/greysheep demo

test: .venv/stamp-dev
	$(BIN)/greysheep doctor
	@# one worker a core, one thread a worker: worlds this small are slower on two threads
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 16 --dist worksteal

matrix: .venv/stamp-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m whole -n logical --maxprocesses 16 --dist worksteal \
		tests/test_matrix.py tests/test_scores.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --hypothesis-profile whole -n logical --maxprocesses 16 \
		--dist worksteal tests/test_invariants.py

eval: .venv/stamp-dev
	$(BIN)/python -m pytest -q -m eval $(if $(ONLY),-k "$(ONLY)")

chaos: .venv/stamp-dev
	mkdir -p build/chaos
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/chaos/folders.py build/chaos/folders.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/chaos/kills.py build/chaos/kills.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/chaos/disks.py build/chaos/disks.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/chaos/cost.py build/chaos/cost.json
	$(BIN)/python benchmarks/chaos/page.py

lint: .venv/stamp-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/bandit -q -c pyproject.toml -r src benchmarks

audit: .venv/stamp-dev
	$(BIN)/pip-audit --skip-editable
