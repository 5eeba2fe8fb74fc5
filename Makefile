# make demo · make test · make bench · make lint: each makes .venv when needed; nothing else has to be typed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test bench lint clean

demo: $(VENV)/.installed
	$(BIN)/python examples/darcy.py --model both --quick

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

bench: $(VENV)/.installed-peers
	$(BIN)/python -m benchmarks --profile quick

# Static checkers see the package as users get it, with solvers and datasets inside.
lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typed build/lib
	$(PIP) --no-deps --target build/typed .
	MYPYPATH=build/typed $(BIN)/mypy -p neuralop_kit

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python >= 3.11, got " + sys.version.split()[0] + "; do: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) -e '.[dev,examples,sphere,convex,xarray,oracles]'
	touch $@

# The benchmark's partners, in the same environment so that one process times both.
$(VENV)/.installed-peers: $(VENV)/.installed
	$(PIP) -e '.[dev,examples,sphere,convex,xarray,oracles,peers]'
	$(PIP) --no-deps torchode==1.0.1 torchtyping==0.1.5  # they pin an old typeguard that they do not need
	touch $@
