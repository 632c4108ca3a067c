# make discover   find a law for the task that ships with agentlab (sets up what it needs first)
# make test       set everything up and run the tests;  make check   formatting, lint, types
SHELL := /bin/bash
VENV ?= .venv
export VENV
BIN := $(VENV)/bin
# Third-party data is looked for beside the checkout, else in the user's cache (agentlab's own default).
ifeq ($(origin AGENTLAB_DATA), undefined)
ifneq ($(wildcard ../shared/data),)
export AGENTLAB_DATA := $(abspath ../shared/data)
endif
endif

.PHONY: help setup discover test check clean
help:
	@sed -n 's/^# //p' Makefile

setup:
	@scripts/setup.sh dev

discover:
	@scripts/setup.sh core
	$(BIN)/agentlab discover task=moe_leverage

test: setup
	$(BIN)/python -m pytest -n 3 --dist worksteal $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
