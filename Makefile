# `make demo` and `make test` each work as the first command on a fresh machine with Python 3.11.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Not compiled: most of what comes is never imported; who imports the rest first writes its bytecode.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
PACKAGES := bench calibration models pipeline plugins
LINKS := build/links
RUN := demo-run
KARABO := plugins/karabo
KARABO_VENV := .venv-karabo

.PHONY: demo test test-karabo lint schema clean

demo: $(VENV)/installed
	$(BIN)/python -m phasewatch.bench.demo $(RUN)

# Work is stolen, not dealt: neighbours then share a worker, and with it their fixtures and kernels.
test: $(VENV)/installed
	$(BIN)/pytest -q -n 2 --dist worksteal --durations=20

# The Karabo device, against a real broker; installs both. Says in one line why it cannot.
test-karabo: $(VENV)/installed
	$(KARABO)/prepare $(KARABO_VENV)
	PHASEWATCH=$(CURDIR)/$(BIN)/phasewatch $(KARABO_VENV)/bin/pytest -q -c $(KARABO)/pytest.ini $(KARABO)/tests

# mypy and import-linter read a tree; the package is mapped onto our folders, so we link one.
lint: $(VENV)/installed
	mkdir -p $(LINKS)/phasewatch
	for p in $(PACKAGES); do ln -sfn ../../../$$p $(LINKS)/phasewatch/$$p; done
	$(BIN)/ruff check $(PACKAGES) tests
	$(BIN)/ruff format --check $(PACKAGES) tests
	PYTHONPATH=$(LINKS) $(BIN)/lint-imports --config setup.cfg --no-cache --no-logo
	cd $(LINKS) && ../../$(BIN)/mypy --config-file ../../setup.cfg -p phasewatch

schema: $(VENV)/installed
	$(BIN)/python -m phasewatch.pipeline.messages > pipeline/schema.json

# torch first and exact: a CPU-only machine then gets its CPU build, and nothing else asks for more.
$(VENV)/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(KARABO_VENV) build $(KARABO)/build $(RUN) *.egg-info $(KARABO)/*.egg-info
