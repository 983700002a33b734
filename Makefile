# The two commands of the README. Everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: search test slow chaos fuzz clean

search: $(VENV)/installed
	$(BIN)/python -m nas.search --target-flops 400M $(ARGS)

test: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder tests search_space controller trainers nas $(ARGS)
	$(BIN)/pytest -m installation tests/installation

slow: $(VENV)/installed-dev
	$(BIN)/pytest -m slow tests $(ARGS)

chaos: $(VENV)/installed-dev
	$(BIN)/pytest -m chaos -s tests $(ARGS)

fuzz: $(VENV)/installed-dev
	$(BIN)/pytest -m fuzz -s tests/fuzz $(ARGS)

# Ray says 3.11, and so do the others; a clear word beats pip's.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 search")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .environments
