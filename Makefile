# Everything a newcomer needs: `make quickstart`, then `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: quickstart test check bench accuracy emulated gpu-suite grid peers reports docs clean help
.DEFAULT_GOAL := help

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vramplan needs Python 3.11 or later; set PYTHON=" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# A stamp per set of extras: installing again happens only when the pins or the package's metadata change.
$(VENV)/.measure: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing vramplan[measure] into $(VENV) (the first time downloads PyTorch)" >&2
	$(PIP) torch
	$(PIP) --editable '.[measure]'
	@touch $@

$(VENV)/.test: $(VENV)/.measure
	@echo "installing the test extras" >&2
	$(PIP) --editable '.[test]'
	@touch $@

quickstart: $(VENV)/.measure  ## predict, really measure on this CPU, and compare scenarios/quickstart.yaml
	$(BIN)/vramplan predict scenarios/quickstart.yaml --device cpu
	$(BIN)/vramplan measure scenarios/quickstart.yaml --device cpu --out $(VENV)/quickstart.json
	$(BIN)/vramplan compare scenarios/quickstart.yaml $(VENV)/quickstart.json

test: $(VENV)/.test  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -q $(ARGS)

check: $(VENV)/.test  ## lint, type-check and test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test

bench: $(VENV)/.test  ## benchmarks: time per prediction, per replay, per trace
	$(BIN)/python -m pytest benchmarks -q -p no:xdist -p no:cacheprovider $(ARGS)

accuracy: $(VENV)/.measure  ## both engines against published GPU measurements -> reports/accuracy.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/accuracy.py

emulated: $(VENV)/.test  ## PyTorch's CUDA build without a card: its allocator against both engines -> reports/emulated.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.nocard $(ARGS)

# What has a fresh record is skipped, so an interrupted chunk is simply started again.
CHUNK ?= 1
gpu-suite: $(VENV)/.measure  ## measure chunk CHUNK of scenarios/gpu on this machine's GPU
	$(BIN)/python -m vramplan suite scenarios/gpu --chunk $(CHUNK) --device cuda $(ARGS)

grid: $(VENV)/.measure  ## the closed form against the trace on every architecture; an interrupted grid goes on (20 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.grid $(ARGS)

peers: $(VENV)/.test  ## the field's estimators on the same published measurements -> reports/peers.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.peers $(ARGS)

# Minutes: the accuracy table and some claims are traced.
reports: accuracy $(VENV)/.test  ## render reports/ anew from what is committed in it
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.reports
	$(BIN)/vramplan check scenarios/*.yaml --against reports/baseline --update

docs: $(VENV)/.test  ## run the commands in docs/ again and redraw its plots
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.docs

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
