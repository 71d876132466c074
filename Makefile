# Everything a person or a machine runs here. Needs python3 with venv, and a network for the first `setup`.

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/pytest
AZURITE := .tools/node_modules/azurite/package.json

.PHONY: setup demo test soak check fix bench migration clean
.DEFAULT_GOAL := check

setup: .venv/.stamp $(AZURITE)

# pip learnt --group in 25.1, and older Pythons bring an older pip.
.venv/.stamp: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -e ".[postgres]" --group dev --group services --group readers
	touch $@

$(AZURITE): .venv/.stamp tests/services.py
	$(BIN)/python -m tests.services install
	touch $@

demo: .venv/.stamp
	$(BIN)/vds demo $(if $(DIR),--dir "$(DIR)")

# The whole suite, with a real Azurite and a real PostgreSQL, which it starts and stops itself.
test: setup
	$(PYTEST) -n 2 --dist worksteal $(ARGS)

# What takes hours to prove: kills by the thousand, long random histories of whole stores. KILLS, EXAMPLES, STEPS, SEED set how much.
soak: setup
	VDS_TEST_KILLS=$(or $(KILLS),1000) VDS_TEST_SEED=$(or $(SEED),1) $(PYTEST) -s tests/fault/test_crowd.py $(ARGS)
	VDS_TEST_EXAMPLES=$(or $(EXAMPLES),1000) VDS_TEST_STEPS=$(or $(STEPS),200) $(PYTEST) -n 2 tests/property/test_store_machine.py $(ARGS)

# What can be known without any service, in about a minute.
check: .venv/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -n 2 --dist worksteal -m "not services and not slow" tests/unit tests/property tests/contract $(ARGS)

fix: .venv/.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The whole matrix takes about an hour and a half: make bench ARGS="--workload small --latency 20 --peers vds,sdk_best --rounds 5"
bench: .bench/.stamp
	$(BIN)/python -m benchmarks $(ARGS)

# The peers, kept apart from all else. One that cannot be installed is no error: the results say that it is absent, and why.
.bench/.stamp: .venv/.stamp benchmarks/install.py
	$(BIN)/python -m benchmarks install
	touch $@

# A new step of the schema, drafted from vds/index/schema.py against a scratch SQLite database: make migration m="add x"
migration: .venv/.stamp
	$(BIN)/python -m migrations "$(m)"

clean:
	rm -rf .venv .tools .bench .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
