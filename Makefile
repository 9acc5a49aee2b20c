# `make demo` and `make test` need nothing but make and Python 3.11 or later: both make their own environment first.
SHELL := /bin/sh
PYTHON := .venv/bin/python
DEMO := runs/demo
PART := 1/1

.PHONY: help env demo test grid lint docs clean

help:
	@echo 'make demo   collect, train, evaluate; ends with the path of the report'
	@echo 'make test   lint, then every test'
	@echo 'make grid   train, dream, save and restore every combination of parts, 1,460 of them, not only a cover of pairs (an hour);'
	@echo '            make grid PART=3/20 does a twentieth'
	@echo 'make lint   style only'
	@echo 'make docs   a page on every part, from its docstring, in docs/api'
	@echo 'make env    the environment in .venv, which the others make by themselves'
	@echo 'make clean  remove .venv, the demo and the pages'

env:
	@command -v python3 >/dev/null 2>&1 || \
	  { echo 'Python 3.11 or later is needed, and there is no python3: apt-get install python3' >&2; exit 1; }
	@python3 launch/environment.py

demo: env
	@$(PYTHON) launch/demo.py --workdir=$(DEMO)

lint: env
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --check --quiet .

test: lint
	@$(PYTHON) -m pytest -n 2

grid: env
	@$(PYTHON) -m pytest -n 2 tests/test_model_cover.py --grid=$(PART)

# An annotation that pdoc cannot resolve is shown as it is written. Matplotlib's first import asks fc-list for the fonts.
docs: env
	@PDOC_ALLOW_EXEC=1 $(PYTHON) -W 'ignore:Error parsing type annotation' -m pdoc --math --docformat google -o docs/api worldmodels
	@echo 'The pages: docs/api/index.html; what is where: docs/README.md'

clean:
	rm -rf .venv $(DEMO) docs/api
