# Every target works from a fresh clone: it makes .venv and installs the pinned requirements first.
# Paths are relative, so that a checkout may lie in a folder with spaces.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m energy_iot
STAMP := .venv/.installed
AIRFLOW_STAMP := .venv/.airflow_installed
SUPERSET_ENV := .venv-superset
SUPERSET_STAMP := $(SUPERSET_ENV)/.installed

# What the data targets work on; override on the command line: make ingest FILES="a.csv b.csv" STATE=.my_state
FILES ?= data/raw
STATE ?= .energy_iot
DEMO_STATE := .energy_iot/demo
DEMO_DATA := data/demo
DEMO_METERS ?= 150
DEMO_DAYS ?= 90
DEMO_SEED ?= 1
# half of its few transformers are tapped; truth.csv and anomalies.csv, what is true of it, are not given to the run
DEMO_TAPS ?= 0.5
DEMO_FILES := $(addprefix $(DEMO_DATA)/,readings.csv meters.csv network_nodes.csv network_readings.csv outages.csv)

##@ Start here

.PHONY: help
help:  ## List all targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z_-]+:.*## / {printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(STAMP)  ## Generate a small fleet with thieves and its network, and run the whole pipeline on it
	@test -f $(DEMO_DATA)/truth.csv || $(RUN) generate --meters $(DEMO_METERS) --days $(DEMO_DAYS) --seed $(DEMO_SEED) --taps-share $(DEMO_TAPS) --overwrite --out $(DEMO_DATA)
	@$(RUN) run --home $(DEMO_STATE) $(DEMO_FILES)

.PHONY: test
test: $(STAMP)  ## Pass the tests (everything but the heavy ones)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --durations 15 -m "not heavy"

##@ Set-up

.PHONY: setup
setup: install  ## Install, and make .env from .env.example if there is none
	@test -f .env || (umask 077 && cp .env.example .env && echo "made .env: nothing in it needs changing for the embedded mode")

.PHONY: install
install: $(STAMP)  ## Make .venv with the pinned requirements

# --no-deps: the compiled file names every package, so nothing is left to resolve
$(STAMP): requirements/pipeline.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: needs Python 3.11 or newer; type: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the pinned requirements into .venv (once; about two minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/pipeline.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

$(AIRFLOW_STAMP): $(STAMP) requirements/airflow.txt
	@echo "adding Airflow to .venv (once; about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/airflow.txt
	@touch $(AIRFLOW_STAMP)

.PHONY: install-airflow
install-airflow: $(AIRFLOW_STAMP)  ## Add Airflow to .venv

$(SUPERSET_STAMP): requirements/superset.txt
	@test -x $(SUPERSET_ENV)/bin/python || $(PYTHON) -m venv $(SUPERSET_ENV)
	@echo "installing Superset into $(SUPERSET_ENV) (once; about two minutes) ..."
	@$(SUPERSET_ENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/superset.txt
	@touch $(SUPERSET_STAMP)

.PHONY: install-superset
install-superset: $(SUPERSET_STAMP)  ## Make .venv-superset with Superset

.PHONY: requirements
requirements:  ## Compile the pins anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-strip-extras --custom-compile-command "make requirements" \
		--upgrade --quiet --output-file requirements/pipeline.txt
	uv pip compile pyproject.toml --extra airflow --group dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-strip-extras --custom-compile-command "make requirements" \
		--constraints requirements/pipeline.txt --quiet --output-file requirements/airflow.txt
	uv pip compile requirements/superset.in --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-strip-extras --custom-compile-command "make requirements" \
		--upgrade --quiet --output-file requirements/superset.txt

.PHONY: doctor
doctor: $(STAMP)  ## Check what is installed, reachable and free
	@$(RUN) --home $(STATE) doctor

##@ Data

.PHONY: download-data
download-data: $(STAMP)  ## Download the Kaggle set (needs ENERGY_IOT_KAGGLE_USERNAME and _KEY)
	@$(RUN) download kaggle --out data/raw

.PHONY: download-data-manual
download-data-manual:  ## Say how to get the data sets by hand
	@echo "Kaggle: open kaggle.com, data set ziya07/smart-meter-electricity-consumption-dataset, press Download,"
	@echo "        and put smart_meter_data.csv (or the zip as it is) into data/raw."
	@echo "UCI:    make download-data-uci, or open archive.ics.uci.edu, data set 235"
	@echo "        (individual household electric power consumption), and put the zip into data/raw."
	@echo "Then:   make pipeline"

.PHONY: download-data-uci
download-data-uci: $(STAMP)  ## Download the UCI household set (20 MB)
	@$(RUN) download uci --out data/raw

.PHONY: ingest
ingest: $(STAMP)  ## Load FILES (default data/raw) into PostgreSQL
	@$(RUN) --home $(STATE) ingest $(FILES)

.PHONY: pipeline
pipeline: $(STAMP)  ## Run the whole pipeline on FILES (default data/raw)
	@$(RUN) --home $(STATE) run $(FILES)

.PHONY: status
status: $(STAMP)  ## Show the last runs and what the stores hold
	@$(RUN) --home $(STATE) status

.PHONY: report
report: $(STAMP)  ## Write the HTML report
	@$(RUN) --home $(STATE) report

##@ dbt

.PHONY: dbt-deps
dbt-deps:  ## Nothing to do: says why
	@echo "dbt-deps: nothing to install. The project owns its few generic tests and macros (dbt/macros), because the"
	@echo "package hub is out of reach on many utility networks."

.PHONY: dbt-run
dbt-run: $(STAMP)  ## Build all models
	@$(RUN) --home $(STATE) dbt run

.PHONY: dbt-test
dbt-test: $(STAMP)  ## Test the models
	@$(RUN) --home $(STATE) dbt test

.PHONY: dbt-build
dbt-build: $(STAMP)  ## Build and test the models
	@$(RUN) --home $(STATE) dbt build

.PHONY: dbt-docs
dbt-docs: $(STAMP)  ## Generate the models' documentation and serve it until Ctrl-C
	@$(RUN) --home $(STATE) dbt docs generate
	@$(RUN) --home $(STATE) dbt docs serve --host 127.0.0.1 --no-browser

##@ Airflow

.PHONY: airflow
airflow: $(AIRFLOW_STAMP)  ## Run Airflow until Ctrl-C; prints its address and password
	@mkdir -p data/landing
	@$(RUN) --home $(STATE) serve airflow

.PHONY: airflow-run
airflow-run: $(AIRFLOW_STAMP)  ## Have the running Airflow do the daily run now, and follow it (FILES="a.csv" instead of data/landing)
	@$(RUN) --home $(STATE) trigger $(if $(filter command line environment,$(origin FILES)),$(FILES))

##@ Superset

# the dashboards show STATE or, as long as nothing was run there, the demo
SHOWN_STATE = $(if $(wildcard $(STATE)/postgres),$(STATE),$(DEMO_STATE))

.PHONY: superset
superset: $(STAMP) $(SUPERSET_STAMP)  ## Run Superset until Ctrl-C; prints its address and, the first time, passwords
	@$(RUN) --home $(SHOWN_STATE) serve superset

.PHONY: superset-export
superset-export: $(STAMP)  ## Write the running Superset's dashboards to dashboards/exports/energy_dashboards.zip
	@$(RUN) --home $(SHOWN_STATE) export-dashboards dashboards/exports/energy_dashboards.zip

.PHONY: screenshots
screenshots: $(SUPERSET_STAMP) demo  ## Take the pictures of the dashboards anew, on the demo (needs Chromium)
	@$(BIN)/python -m dashboards.take_screenshots $(DEMO_STATE)

##@ Great Expectations

.PHONY: ge-init
ge-init: $(STAMP)  ## Check that the file context loads, and list its suites
	@$(RUN) --home $(STATE) suites

.PHONY: ge-run
ge-run: $(STAMP)  ## Judge staging and marts
	@$(RUN) --home $(STATE) validate

.PHONY: ge-docs
ge-docs: $(STAMP)  ## Build the Data Docs and say where they are
	@$(RUN) --home $(STATE) data-docs

##@ Development

.PHONY: test-heavy
test-heavy: $(AIRFLOW_STAMP) $(SUPERSET_STAMP)  ## Pass the heavy tests only (Airflow, Superset, browser, kills; 40 minutes)
	@$(BIN)/python -m pytest -n 3 --dist loadgroup --durations 30 -m heavy  # much of it waits for servers

.PHONY: test-all
test-all: test test-heavy  ## Pass all tests

.PHONY: lint
lint: $(STAMP)  ## Lint Python and SQL, check formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/python -m sqlfluff lint --disable-progress-bar dbt/models dbt/tests dbt/macros

.PHONY: format
format: $(STAMP)  ## Format Python and SQL
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python -m sqlfluff fix --disable-progress-bar dbt/models dbt/tests

.PHONY: bench
bench: $(STAMP)  ## Measure speed, both sides in one run (BENCH="FILE" to use a file of yours)
	@$(BIN)/python -m benchmarks.run $(BENCH)

.PHONY: evaluate
evaluate: $(STAMP)  ## Judge the inspection list on fresh fleets whose truth is known, and write docs/evaluation.md
	@$(RUN) evaluate

.PHONY: clean
clean:  ## Remove caches and generated demo files; keeps .venv and your state
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis data/demo dbt/target dbt/logs
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: clean-all
clean-all: clean  ## Also remove .venv and the state in .energy_iot
	rm -rf .venv .energy_iot
