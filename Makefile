# Two commands: `make demo` trains a real network on this machine, `make test` checks the project.
# For those who work on it also: `make lint`, `make test-without-torch`, `make coverage`, `make docs`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-without-torch lint coverage docs clean

demo: $(VENV)/.demo-installed
	$(BIN)/cpsl local --scenario mixed --web

# Three tests at a time, on two cores as well: many wait for programs that they started.
test: $(VENV)/.test-installed lint
	$(BIN)/pytest --numprocesses 3 --dist worksteal

# As on a device that lacks PyTorch: it is hidden, and what is about it left out.
test-without-torch: $(VENV)/.test-installed
	$(BIN)/pytest --without-torch --numprocesses 3 --dist worksteal

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Lines and branches that the tests reach, those of the programs that they start included.
coverage: export COVERAGE_FILE = $(CURDIR)/build/coverage/data
coverage: $(VENV)/.coverage-installed
	mkdir -p build/coverage
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# A page for every module, from its docstrings; build/docs/index.html is where to begin.
docs: $(VENV)/.docs-installed
	$(BIN)/pdoc --output-directory build/docs profiles runtime device_agent edge_coordinator

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[edge]'
	touch $@

$(VENV)/.test-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.demo-installed

$(VENV)/.coverage-installed $(VENV)/.docs-installed: $(VENV)/.%-installed: $(VENV)/.test-installed
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev,$*]'
	touch $@

clean:
	rm -rf $(VENV)
