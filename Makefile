# One environment for everything: `make install` is the first step of the others, so nobody needs to call it.
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

# One torch thread per test process: two threads beside another busy process are far slower than one. A process keeps the
# files that it began with, and so their fixtures, until the other has nothing left to do. Where the shell forbids compiled
# files, each of the many processes would compile the package and the tests anew.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --durations=20

.PHONY: install demo test test-full lint bench clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

demo: install
	rm -rf $(DEMO)
	$(BIN)/buttress harden --config src/buttress/recipes/demo.yaml --out $(DEMO)

test: lint
	$(PYTEST)

# Every case where `test` runs representatives, and all examples of the property tests.
test-full: lint
	$(PYTEST) --full

lint: install
	$(BIN)/python scripts/write_stubs.py
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt requests foolbox pyautoattack
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps torchattacks==3.5.1
	$(BIN)/python benchmarks/attacks.py
	$(BIN)/python benchmarks/autoattack.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/foreign_attacks.py
	$(BIN)/python benchmarks/temperature.py --quick
	$(BIN)/python benchmarks/saturated.py
	$(BIN)/python benchmarks/layers.py
	$(BIN)/python benchmarks/defences.py
	$(BIN)/python benchmarks/defence_times.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/large_folder.py
	$(BIN)/python benchmarks/architectures.py
	$(BIN)/python benchmarks/convergence.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
