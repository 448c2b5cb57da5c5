"""The committed suites, the tables' documented columns, the settings and the checkpoint agree."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from energy_iot.quality.suites import PARAMETERS
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = ROOT / "great_expectations"
SUITES = {path.stem: json.loads(path.read_text()) for path in sorted((CONTEXT / "expectations").glob("*.json"))}
RULES = [
    pytest.param(rule, id=f"{name}: {rule['meta'].get('rule')}")
    for name, suite in SUITES.items()
    for rule in suite["expectations"]
]
MODELS = {
    model["name"]: {column["name"] for column in model.get("columns", [])}
    for path in sorted((ROOT / "dbt" / "models").rglob("*.yml"))
    for model in yaml.safe_load(path.read_text()).get("models", [])
}
NAMED = {"raw_readings_suite", "staging_readings_suite", "marts_metrics_suite"}  # other parts know these


def test_there_are_suites_rules_and_models() -> None:
    assert set(SUITES) >= NAMED
    assert len(RULES) > 20
    assert MODELS, "no dbt models found: the test below would pass on nothing"


def columns_used(suite: dict[str, Any]) -> set[str]:
    arguments = [rule["kwargs"] for rule in suite["expectations"]]
    return {
        *suite["meta"]["keys"],
        *(kwargs["column"] for kwargs in arguments if "column" in kwargs),
        *(name for kwargs in arguments for name in kwargs.get("column_set", [])),
    }


@pytest.mark.parametrize("suite", [name for name in SUITES if name != "raw_readings_suite"])
def test_suites_use_the_columns_that_dbt_documents(suite: str) -> None:
    schema, model = SUITES[suite]["meta"]["table"].split(".")
    assert schema in {"staging", "intermediate", "marts"}
    assert MODELS.get(model), f"dbt documents no columns of {model}"
    assert columns_used(SUITES[suite]) <= MODELS[model]


def test_the_raw_suite_asks_for_the_columns_of_its_table(postgres: Postgres) -> None:
    schema, table = SUITES["raw_readings_suite"]["meta"]["table"].split(".")
    with postgres.connect() as connection:
        columns = connection.execute(
            "select column_name from information_schema.columns where table_schema = %s and table_name = %s",
            (schema, table),
        ).fetchall()
    assert columns_used(SUITES["raw_readings_suite"]) == {name for (name,) in columns}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_says_what_why_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["severity"] in {"critical", "warning", "info"}
    assert rule["meta"]["rule"]
    assert rule["meta"]["fix"]
    lenient = "mostly" in rule["kwargs"] or rule["severity"] == "info"
    assert rule.get("notes") or not lenient, "a lenient rule gives its reason"


@pytest.mark.parametrize("suite", SUITES)
def test_rules_of_a_suite_are_told_apart(suite: str) -> None:
    rules = [rule["meta"]["rule"] for rule in SUITES[suite]["expectations"]]
    ids = [rule["id"] for rule in SUITES[suite]["expectations"]]
    assert len(set(rules)) == len(set(ids)) == len(rules) > 0


@pytest.mark.parametrize("suite", SUITES)
def test_each_suite_says_what_a_slice_of_its_table_is(suite: str) -> None:
    assert SUITES[suite]["meta"]["slice"].split()[0] in {"of", "around"}, "it follows 'rows'"
    assert any("slice" in note for note in SUITES[suite]["notes"])


def test_rules_find_what_they_judge_without_a_schema() -> None:
    """A schema would lead them to the whole table where a slice is judged."""
    queries = {
        text
        for suite in SUITES.values()
        for rule in suite["expectations"]
        for text in (*rule["kwargs"].values(), rule["meta"].get("examples"))
        if isinstance(text, str) and "select" in text
    }
    assert len(queries) > 10
    qualified = {name for query in queries for name in re.findall(r"(?:from|join)\s+(\w+\.\w+)", query)}
    assert qualified == {"ml.model_versions"}  # which version is in force is no matter of slices


def test_parameters_are_settings_and_all_are_used() -> None:
    expressions = re.findall(r'"\$PARAMETER": "([^"]+)"', json.dumps(SUITES))
    used = {name for expression in expressions for name in re.findall(r"[a-z_]\w*", expression)}
    assert used == set(PARAMETERS)
    assert used <= set(Settings.model_fields)


def test_the_checkpoint_runs_every_suite_on_its_table() -> None:
    checkpoint = json.loads((CONTEXT / "checkpoints" / "energy_checkpoint.json").read_text())
    tables = {}
    for named in checkpoint["validation_definitions"]:
        definition = json.loads((CONTEXT / "validation_definitions" / f"{named['name']}.json").read_text())
        assert definition["id"] == named["id"]
        assert definition["suite"]["id"] == SUITES[definition["suite"]["name"]]["id"]
        tables[definition["suite"]["name"]] = definition["data"]["asset"]
    assert set(tables) == set(SUITES)

    configuration = yaml.safe_load((CONTEXT / "great_expectations.yml").read_text())
    assets = configuration["fluent_datasources"]["postgres"]["assets"]
    for suite, asset in tables.items():
        assert assets[asset["name"]]["id"] == asset["id"]
        assert assets[asset["name"]]["table_name"] == SUITES[suite]["meta"]["table"].split(".")[1]


def test_the_context_holds_no_address_and_sends_no_statistics() -> None:
    text = (CONTEXT / "great_expectations.yml").read_text()
    assert "connection_string: ${ENERGY_IOT_POSTGRES_DIALECT}" in text
    assert "://" not in text
    assert yaml.safe_load(text)["analytics_enabled"] is False
