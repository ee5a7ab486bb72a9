# make demo: the whole job on a sample world.   make test, make check: what every change must pass.
# Everything is installed into .venv; the stamp files in it say what is there, so that nothing is installed twice.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
MINUTES ?= 4
# Tests share the cores: one process each, one thread per process.
JOBS ?= 2

.PHONY: help install demo test check docs clean

help:
	@echo "make demo   install, draw a sample world, do the whole job on it, say where report.html is"
	@echo "make test   install what the tests need and run them"
	@echo "make check  lint, format and types"
	@echo "make docs   write docs/reference/ from the program"
	@echo "make clean  remove the sample world"

install: $(INSTALLED)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python found; Maskwright needs 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is too old; Maskwright needs 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)

$(INSTALLED): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable .
	@touch $@

# The dev group is read here, since only pip 25.1 and newer knows --group.
$(INSTALLED_DEV): $(INSTALLED)
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' \
		> $(VENV)/dev-requirements.txt
	$(BIN)/python -m pip install --requirement $(VENV)/dev-requirements.txt
	@touch $@

demo: $(INSTALLED)
	@test -d demo/raw || $(BIN)/maskwright demo -o demo/raw
	$(BIN)/maskwright make demo/raw -o demo/work --minutes $(MINUTES)
	@echo "open demo/work/report.html in a browser"

test: $(INSTALLED_DEV)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

check: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python docs/reference/generate.py

clean:
	rm -rf demo
