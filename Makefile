# Two commands for newcomers, `make train` and `make test`; each sets up all that it needs, once.

PYTHON ?= python3
# PyPI's torch for Linux brings gigabytes of CUDA, so the CPU build is asked for first. For a GPU: make train TORCH=torch==2.13.0
TORCH ?= torch==2.13.0+cpu
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# pip compiles what it copies, not what it installs in place.
COMPILE := $(BIN)/python -m compileall -q src
# A stamp says that the environment holds what its rule installs; it lives in the environment and dies with it.
RUN := $(VENV)/.made-run
DEV := $(VENV)/.made-dev

.PHONY: train test bench proof clean

train: $(RUN)
	$(BIN)/trueloop train digits

test: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

bench: $(DEV)
	$(BIN)/python benchmarks/run.py

proof: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

clean:
	rm -rf $(VENV)

$(VENV)/.made-torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "trueloop needs Python 3.11 or newer; this is $$($(PYTHON) --version). Name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install '$(TORCH)' --retries 0 --extra-index-url https://download.pytorch.org/whl/cpu || \
		$(PIP) install torch -c constraints.txt
	touch $@

$(RUN): $(VENV)/.made-torch pyproject.toml
	$(PIP) install -c constraints.txt -e '.[digits,tensorboard]'
	$(COMPILE)
	touch $@

$(DEV): $(VENV)/.made-torch pyproject.toml
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(COMPILE)
	touch $(RUN) $@
