# `make demo` trains on the bundled cars with a live viewer; `make test` runs every check.
# Both do the whole set-up first (scripts/setup.sh) and repeat it only when it has changed.

SHELL := /bin/bash
MINUTES ?= 10
PORT ?= 7007
PYTHON ?=
PYTEST_ARGS ?=

# What belongs to another project's environment stays outside.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PYTHONNOUSERSITE := 1
# torch would start a pool of compiler processes in every command; nothing here is compiled.
export TORCHINDUCTOR_COMPILE_THREADS := 1
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup demo test lint format
.DEFAULT_GOAL := help

help:
	@echo 'make demo    train on the bundled cars, live at http://localhost:$(PORT) (MINUTES=$(MINUTES), PORT=$(PORT))'
	@echo 'make test    lint, types and the whole test suite (PYTEST_ARGS="-m not\ slow" to choose)'
	@echo 'make lint    ruff and pyright only'
	@echo 'make format  let ruff rewrite the files'
	@echo 'make setup   system packages and .venv only (PYTHON=python3.12 to choose the interpreter)'

setup:
	@PYTHON="$(PYTHON)" bash scripts/setup.sh

demo: setup
	.venv/bin/gan3d demo --minutes "$(MINUTES)" --port "$(PORT)"

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright -p pyproject.toml

format: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

test: lint
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadscope --durations 15 $(PYTEST_ARGS)
