# embedmill: every target is a Python command; this file only names them (README.md has them for PowerShell).
PYTHON ?= python3
VENV ?= .venv
CONFIG ?= configs/default.toml
TEXTS ?= 200
ROWS ?= 1000000
BUILD ?= build
PY := $(VENV)/bin/python
# On each core, four at most.
PYTEST := $(PY) -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup sample embed plan tune doctor test check crash crash-nightly hostile soak fuzz readers hardware \
	directml-linux windows bench bench-streams docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make .venv and install embedmill

sample: data/stdlib-docs.parquet ## build the sample corpus

embed: setup $(if $(filter configs/default.toml,$(CONFIG)),sample) ## embed a corpus: make embed [CONFIG=configs/mine.toml]
	@$(PY) -m embedmill run $(CONFIG)

plan: setup $(if $(filter configs/default.toml,$(CONFIG)),sample) ## show what make embed would do; writes nothing
	@$(PY) -m embedmill plan $(CONFIG)

tune: setup $(if $(filter configs/default.toml,$(CONFIG)),sample) ## find the best batches for a corpus: make tune [CONFIG=...]
	@mkdir -p $(BUILD)
	@$(PY) -m embedmill tune $(CONFIG) --chart $(BUILD)/tuning.html

doctor: setup ## try every provider on this machine
	@$(PY) -m embedmill doctor

test: $(VENV)/.developing ## the tests (fast ones)
	@$(PYTEST) -m "not crash and not hostile and not soak"

crash: $(VENV)/.developing ## kill runs at random instants and compare what they end with
	@$(PYTEST) -m crash

crash-nightly: $(VENV)/.developing ## the same with 3,000 kills at random instants (half an hour)
	@EMBEDMILL_KILLS=3000 $(PYTEST) -m crash

hostile: $(VENV)/.developing ## damaged and hostile input, by the hundred, in little memory and time; other tests that take long
	@$(PYTEST) -m hostile

soak: $(VENV)/.developing ## a million short rows: memory, open files and rate stay as they are: make soak [ROWS=100000]
	@EMBEDMILL_SOAK_ROWS=$(ROWS) $(PY) -m pytest -m soak

fuzz: setup ## coverage-guided fuzzing of the JSONL and config readers, a minute each, in an environment of its own
	@$(PYTHON) -m venv $(BUILD)/fuzz
	@$(BUILD)/fuzz/bin/python -m pip install --quiet --disable-pip-version-check --editable . atheris
	@$(BUILD)/fuzz/bin/python -m tests.fuzz jsonl 60
	@$(BUILD)/fuzz/bin/python -m tests.fuzz config 60

readers: setup ## polars, datasets and LanceDB read an output, in an environment of their own
	@$(PYTHON) -m venv $(BUILD)/readers
	@$(BUILD)/readers/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' polars datasets lancedb
	@$(BUILD)/readers/bin/python -m pytest tests/hostile/test_other_readers.py -m hostile -rs

hardware: setup ## OpenVINO, WebGPU and QNN without their hardware: make hardware [TEXTS=200] [LONGEST=128]
	@$(PY) -m hardware --texts $(TEXTS) $(if $(LONGEST),--longest $(LONGEST)) --folder $(BUILD)/hardware

directml-linux: setup ## the real DirectML.dll under Wine and software Vulkan (root; minutes, 3 GB)
	@$(PY) -m hardware.directml.parity --folder $(BUILD)/directml

windows: setup ## embedmill in a real Windows Python under Wine: make windows [CHECKS="codes kills"] (root; an hour, 4 GB)
	@$(PY) -m hardware.windows --folder $(BUILD)/directml $(CHECKS)

check: $(VENV)/.developing ## lint, format and types
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy

docs: $(VENV)/.developing ## write docs/configuration.md from the config structs
	@$(PY) -m docs

bench: setup $(if $(filter configs/default.toml,$(CONFIG)),sample) ## measure every provider here with the same documents
	@$(PY) -m embedmill bench $(CONFIG)

bench-streams: setup ## time the batch shapes and stream counts that the CPU engine's rules rest on
	@$(PY) -m bench.streams

clean: ## remove what make built here (.venv, the sample corpus, out/, build/)
	rm -rf $(VENV) data/stdlib-docs.parquet data/stdlib-docs.jsonl.gz out build/hardware build/directml

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "embedmill needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "installing into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	@$(PIP) --editable '.[dev]'
	@touch $@

data/stdlib-docs.parquet: data/__main__.py | setup
	@$(PY) -m data
