# Everything needs only python3 (3.10 or newer) and make; `make setup` does the rest and can be repeated at no cost.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup test demo check train-toy bench clean

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

test: setup
	scripts/check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

demo: setup
	$(BIN)/keystep demo --out demo-videos

check: setup
	scripts/check

train-toy: setup
	$(BIN)/python scripts/train_toy.py --out build/toy

bench: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/keystep bench --out build/bench

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
