# Every target works from a fresh clone: it makes .venv and installs the pinned requirements first.
# Paths are relative, so that a checkout may lie in a folder with spaces.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m energy_iot
STAMP := .venv/.installed
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs  # or its theme announces a successor at each start
AIRFLOW_STAMP := .venv/.airflow_installed
SUPERSET_ENV := .venv-superset
SUPERSET_STAMP := $(SUPERSET_ENV)/.installed

COMPOSE ?= docker compose
# what `make pipeline` runs in; asked for only then
WHERE ?= $(if $(shell $(COMPOSE) ps --status running --quiet postgres 2>/dev/null),stack,here)

# What the data targets work on; override on the command line: make ingest FILES="a.csv b.csv" STATE=.my_state
FILES ?= data/raw
STATE ?= .energy_iot
DEMO_STATE := .energy_iot/demo
# dashboards and monitoring show STATE or, as long as nothing was run there, the demo
SHOWN_STATE = $(if $(wildcard $(STATE)/postgres),$(STATE),$(DEMO_STATE))
DEMO_DATA := data/demo
DEMO_METERS ?= 150
DEMO_DAYS ?= 90
DEMO_SEED ?= 1
STACK_DEMO := /var/lib/energy-iot/demo
# half of its few transformers are tapped; truth.csv and anomalies.csv, what is true of it, are not given to the run
DEMO_TAPS ?= 0.5
DEMO_FILES := $(addprefix $(DEMO_DATA)/,readings.csv meters.csv network_nodes.csv network_readings.csv outages.csv)

##@ Start here

.PHONY: help
help:  ## List all targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z_%-]+:.*## / {printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(STAMP)  ## Generate a small fleet with thieves and its network, and run the whole pipeline on it
	@test -f $(DEMO_DATA)/truth.csv || $(RUN) generate --meters $(DEMO_METERS) --days $(DEMO_DAYS) --seed $(DEMO_SEED) --taps-share $(DEMO_TAPS) --overwrite --out $(DEMO_DATA)
	@$(RUN) run --home $(DEMO_STATE) $(DEMO_FILES)

.PHONY: test
test: $(STAMP)  ## Pass the tests (everything but the heavy ones)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --durations 15 -m "not heavy and not compose"

##@ Set-up

.PHONY: setup
setup:  ## Make .env with random secrets, or complete it; make the folders of data
	@sh docker/setup.sh

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

.PHONY: pipeline pipeline-here pipeline-stack
pipeline:  ## Run the whole pipeline on FILES (default data/raw); in the stack if that runs here (WHERE=here, WHERE=stack)
	@$(MAKE) --no-print-directory pipeline-$(WHERE)

pipeline-here: $(STAMP)
	@$(RUN) --home $(STATE) run $(FILES)

pipeline-stack: docker-there
	@echo "in the stack, on its PostgreSQL and ClickHouse; natively: make pipeline WHERE=here"
	@$(COMPOSE) run --rm pipeline run $(FILES)

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

.PHONY: superset
superset: $(STAMP) $(SUPERSET_STAMP)  ## Run Superset until Ctrl-C; prints its address and, the first time, passwords
	@$(RUN) --home $(SHOWN_STATE) serve superset

.PHONY: superset-export
superset-export: $(STAMP)  ## Write the running Superset's dashboards to dashboards/exports/energy_dashboards.zip
	@$(RUN) --home $(SHOWN_STATE) export-dashboards dashboards/exports/energy_dashboards.zip

.PHONY: screenshots
screenshots: $(SUPERSET_STAMP) demo  ## Take the pictures of the dashboards anew, on the demo (needs Chromium)
	@$(BIN)/python -m dashboards.take_screenshots $(DEMO_STATE)

##@ Monitoring

.PHONY: monitoring
monitoring: $(STAMP)  ## Run Prometheus, Alertmanager and exporters until Ctrl-C; Grafana too where Docker has its image
	@$(RUN) --home $(SHOWN_STATE) serve monitoring

.PHONY: grafana-dashboards
grafana-dashboards: $(STAMP)  ## Write Grafana's dashboards from their code
	@$(BIN)/python -m monitoring.grafana.build

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

##@ Documentation

DOCS_ADDRESS ?= 127.0.0.1:8000

.PHONY: docs
docs: $(STAMP)  ## Build the site of the documentation into site/
	@$(MKDOCS) build --quiet
	@echo "open site/index.html, or type: make docs-serve"

.PHONY: docs-serve
docs-serve: $(STAMP)  ## Show the site until Ctrl-C, anew after each change of a page (DOCS_ADDRESS=127.0.0.1:8000)
	@$(MKDOCS) serve --dev-addr $(DOCS_ADDRESS)

.PHONY: docs-reference
docs-reference: $(STAMP)  ## Write the data dictionary and the command line's reference anew
	@$(BIN)/python -m docs.tools.data_dictionary
	@$(BIN)/python -m docs.tools.command_line

.PHONY: figures
figures: $(STAMP)  ## Draw the figures whose text is new (needs Node.js and Chromium)
	@$(BIN)/python -m docs.tools.figures

.PHONY: demo-recording
demo-recording: $(STAMP)  ## Record a demo of what is committed as docs/images/demo.svg (needs Node.js)
	@$(BIN)/python -m docs.tools.demo_recording

.PHONY: notebooks
notebooks: $(STAMP)  ## Run the notebooks and keep what they show
	@$(BIN)/python -m docs.tools.notebooks

##@ Docker

.PHONY: docker-there
docker-there:
	@$(COMPOSE) version >/dev/null 2>&1 || { echo "error: '$(COMPOSE)' does not work here"; \
		echo "  fix: install Docker with Compose 2.24 or newer; without it, make demo runs all of this natively"; exit 1; }
	@test -f .env || { echo "error: there is no .env"; echo "  fix: make setup"; exit 1; }

.PHONY: up
up: docker-there  ## Build and start the stack, wait until all is healthy, print addresses
	@$(COMPOSE) build --quiet init-db
	@$(COMPOSE) up --detach --build --wait
	@sh docker/addresses.sh

.PHONY: down
down: docker-there  ## Stop the stack; data stay in its volumes
	@$(COMPOSE) --profile "*" down

.PHONY: ps
ps: docker-there  ## List the containers with their health
	@$(COMPOSE) ps --all

.PHONY: logs
logs: docker-there  ## Follow all logs
	@$(COMPOSE) logs --follow --tail 50

logs-%: docker-there  ## Follow the log of one service, such as logs-superset
	@$(COMPOSE) logs --follow --tail 200 $*

.PHONY: restart
restart: docker-there  ## Restart all containers
	@$(COMPOSE) restart

.PHONY: demo-docker
demo-docker: docker-there  ## In the stack: generate a small fleet with thieves, and run the pipeline on it
	@$(COMPOSE) run --rm pipeline generate --meters $(DEMO_METERS) --days $(DEMO_DAYS) --seed $(DEMO_SEED) --taps-share $(DEMO_TAPS) --overwrite --out $(STACK_DEMO)
	@$(COMPOSE) run --rm pipeline run $(addprefix $(STACK_DEMO)/,$(notdir $(DEMO_FILES)))

.PHONY: psql
psql: docker-there  ## Open psql on the stack's readings, as its administrator
	@$(COMPOSE) exec postgres psql --username=postgres energy_iot

.PHONY: clickhouse-client
clickhouse-client: docker-there  ## Open clickhouse-client on the stack's published tables
	@$(COMPOSE) exec clickhouse sh -c 'CLICKHOUSE_USER=pipeline CLICKHOUSE_PASSWORD=$$CLICKHOUSE_PIPELINE_PASSWORD exec clickhouse-client --database energy_analytics'

.PHONY: backup
backup: docker-there  ## Write databases, models and reports to TO (default backups/ and the time)
	@COMPOSE="$(COMPOSE)" sh docker/backup.sh $(TO)

.PHONY: restore
restore: docker-there  ## Make the stack what the folder FROM says, and compare
	@COMPOSE="$(COMPOSE)" sh docker/restore.sh $(FROM)

.PHONY: clean-volumes
clean-volumes: docker-there  ## Stop the stack and delete all of its data (asks; YES=1 does not)
	@test -n "$(YES)" || { printf "this deletes all data of the stack; type yes: "; read answer; test "$$answer" = yes || { echo "kept"; exit 1; }; }
	@$(COMPOSE) --profile "*" down --volumes

##@ Development

.PHONY: test-heavy
test-heavy: $(AIRFLOW_STAMP) $(SUPERSET_STAMP)  ## Pass the heavy tests only (Airflow, Superset, browser, kills; 40 minutes)
	@$(BIN)/python -m pytest -n 3 --dist loadgroup --durations 30 -m heavy  # much of it waits for servers

.PHONY: test-compose
test-compose: $(STAMP)  ## Build the images, start the stack on a Docker engine of its own, and use it (needs root and dockerd)
	@$(BIN)/python -m pytest -m compose --durations 20 tests/compose

.PHONY: test-all
test-all: test test-heavy  ## Pass all tests

.PHONY: lint
lint: $(STAMP)  ## Lint Python and SQL, check formatting, types and common misspellings
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/python -m sqlfluff lint --disable-progress-bar dbt/models dbt/tests dbt/macros
	@$(BIN)/python -m codespell_lib

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
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis site data/demo dbt/target dbt/logs
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: clean-all
clean-all: clean  ## Also remove .venv and the state in .energy_iot
	rm -rf .venv .energy_iot
