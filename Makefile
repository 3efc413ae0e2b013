PYTHON ?= python3
POETRY ?= .poetry/bin/poetry
BIN    := .venv/bin
PINS   := .venv/requirements.txt

.PHONY: help run notebooks test docs bench lint lock clean

help:
	@echo 'make run        set up, then execute the notebooks into results/notebooks/index.html'
	@echo 'make test       set up, then run the tests'
	@echo 'make docs       build the documentation site, results/docs/index.html'
	@echo 'make notebooks  execute the notebooks in place, as they are committed'
	@echo 'make bench      time this package against its peers (peers get virtual environments under results/)'
	@echo 'make lint       format, check and type-check'
	@echo 'make lock       write poetry.lock anew'
	@echo 'make clean      remove both environments; results/ stays'

run: .venv/ready
	$(BIN)/python -m workbench run

notebooks: .venv/ready
	$(BIN)/python -m workbench run --in-place

test: .venv/ready
	$(BIN)/python -m pytest

# Warnings are errors, broken links among them. Nothing is fetched. Built afresh each time, in under a minute.
docs: .venv/docs-ready
	rm -rf results/docs docs/api
	$(BIN)/python -m sphinx -b html -c docs -d .venv/doctrees -E -W --keep-going --quiet -j auto . results/docs
	$(BIN)/python docs/check_site.py results/docs
	@echo 'results/docs/index.html'

bench: .venv/ready
	$(BIN)/python -m benchmarks

lint: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The lock's versions, installed by pip. CUDA libraries are left out of the pins: the torch wheel
# that pip picks (CPU or CUDA) asks for exactly the ones it was built with.
.venv/ready: pyproject.toml poetry.lock | $(POETRY)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(POETRY) export --with dev --all-extras --without-hashes --output $(PINS).all
	grep -Ev '^(nvidia|cuda|triton)' $(PINS).all > $(PINS)
	$(BIN)/python -m pip install --quiet --requirement $(PINS)
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# What only the site needs, on top.
.venv/docs-ready: .venv/ready
	$(POETRY) export --only docs --without-hashes --output $(PINS).docs
	$(BIN)/python -m pip install --quiet --requirement $(PINS).docs
	touch $@

.poetry/bin/poetry:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .poetry
	.poetry/bin/python -m pip install --quiet 'poetry>=2.1,<3' 'poetry-plugin-export>=1.9'

# Re-locks through the index pip uses: some indexes lack the JSON pages Poetry asks for.
lock: | $(POETRY)
	.poetry/bin/python -m pip install --quiet poetry-plugin-pypi-mirror
	POETRY_PYPI_MIRROR_URL=$$(.poetry/bin/python -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)') $(POETRY) lock

clean:
	rm -rf .venv .poetry
