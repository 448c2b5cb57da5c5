"""The dbt project's YAML against its files, and against the tables that PostgreSQL holds after a build."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.tools.data_dictionary import CLICKHOUSE, described_tables
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres
from energy_iot.transformation.dbt import model_variables, run_dbt

DBT_DIR = Path(__file__).resolve().parents[2] / "dbt"
MODEL_FILES = {path.stem: path for path in sorted((DBT_DIR / "models").rglob("*.sql"))}
YAML_FILES = sorted((DBT_DIR / "models").rglob("*.yml"))


def parsed(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict), path
    return content


MODELS = {model["name"]: (path, model) for path in YAML_FILES for model in parsed(path).get("models", [])}
SOURCES = {
    (source["schema"], table["name"]): table
    for path in YAML_FILES
    for source in parsed(path).get("sources", [])
    for table in source["tables"]
}
MACROS = {macro["name"]: macro for macro in parsed(DBT_DIR / "macros" / "_macros.yml")["macros"]}


def test_each_model_is_described_in_its_own_folder() -> None:
    assert len(MODEL_FILES) >= 8
    assert set(MODELS) == set(MODEL_FILES)
    for name, (path, _) in MODELS.items():
        assert path.parent == MODEL_FILES[name].parent
        assert path.name == f"_{path.parent.name}__models.yml"


@pytest.mark.parametrize(
    ("name", "table"),
    [(name, model) for name, (_, model) in MODELS.items()] + [(".".join(key), table) for key, table in SOURCES.items()],
)
def test_everything_is_described(name: str, table: dict[str, Any]) -> None:
    assert table["description"].strip()
    assert table["columns"]
    for column in table["columns"]:
        assert column.get("description", "").strip(), f"{name}.{column['name']} has no description"
        assert column.get("data_type"), f"{name}.{column['name']} has no data_type"


@pytest.mark.parametrize(("name", "table"), [(name, model) for name, (_, model) in MODELS.items()])
def test_units_in_names_are_in_descriptions(name: str, table: dict[str, Any]) -> None:
    units = {"kwh": "kWh", "kw": "kW", "v": " V", "c": "degrees Celsius", "pct": "%", "kmh": "km/h"}
    for column in table["columns"]:
        unit = units.get(column["name"].rsplit("_", 1)[-1])
        if unit and "_" in column["name"]:
            assert unit in f" {column['description']}", f"{name}.{column['name']} does not say {unit}"


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_its_grain_tested(name: str) -> None:
    _, model = MODELS[name]
    tested = [test for test in model.get("data_tests", []) if "unique_combination" in test]
    unique = [column["name"] for column in model["columns"] if "unique" in column.get("data_tests", [])]
    assert tested or unique, f"{name}: no test that its key is unique"
    keys = tested[0]["unique_combination"]["arguments"]["columns"] if tested else unique
    for column in model["columns"]:
        if column["name"] in keys:
            assert "not_null" in column.get("data_tests", []), f"{name}.{column['name']}: part of the key, may be null"


def test_each_macro_is_described_with_its_arguments() -> None:
    defined = {
        match[1]: [argument.split("=")[0].strip() for argument in match[2].split(",") if argument.strip()]
        for path in (DBT_DIR / "macros").glob("*.sql")
        for match in re.finditer(r"{% macro (\w+)\((.*?)\)", path.read_text())
        if "__" not in match[1]  # the engines' variants are part of the macro that they serve
    }
    assert len(defined) >= 10
    described = {name: [argument["name"] for argument in macro.get("arguments", [])] for name, macro in MACROS.items()}
    assert described == defined


def test_each_variable_is_a_setting_and_dbt_by_hand_has_its_default() -> None:
    variables = parsed(DBT_DIR / "dbt_project.yml")["vars"]
    assert len(variables) >= 3
    assert variables == model_variables(Settings())


def test_tables_have_the_described_columns(settings: Settings, postgres: Postgres) -> None:
    run_dbt(settings, ["run", "--empty"])
    with postgres.connect() as connection:
        rows = connection.execute(
            "select table_schema, table_name, column_name, data_type from information_schema.columns "
            "where table_schema not in ('pg_catalog', 'information_schema') order by ordinal_position"
        ).fetchall()
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for schema, table, column, data_type in rows:
        found.setdefault((schema, table), []).append((column, data_type.removesuffix(" without time zone")))
    described = SOURCES | {(path.parent.name, name): model for name, (path, model) in MODELS.items()}
    assert len(described) >= 13
    assert {
        key: [(column["name"], column["data_type"]) for column in table["columns"]] for key, table in described.items()
    } == found
    in_dictionary = [
        ((table.schema, table.name), [(column.name, column.kind) for column in table.columns])
        for table in described_tables()
        if table.schema != CLICKHOUSE
    ]
    assert sorted(in_dictionary) == sorted(found.items())
