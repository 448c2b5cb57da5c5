"""The data dictionary: every table and column of both stores, from dbt's YAML and the published tables' definitions.

`make docs-reference` writes it; a test fails when it is stale, and another one when dbt's YAML and a database differ.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from docs.tools.markdown_files import PROJECT_DIR
from energy_iot.sync.published_tables import TABLES, PublishedTable

PAGE: Final = PROJECT_DIR / "docs/04_data_dictionary.md"
CLICKHOUSE: Final = "ClickHouse"
SCHEMAS: Final = {  # in the order that data walks
    "raw_data": None,  # None: dbt's YAML describes it as a source
    "staging": "One row a reading, or an entry of the registry; our names, types and units, made by dbt.",
    "intermediate": "What scores and marts are made of, by dbt.",
    "ml": None,
    "marts": "What people look at, made by dbt and published to ClickHouse.",
    CLICKHOUSE: "What dashboards read: the marts, in the database that the setting `clickhouse_database` names.",
    "quality": None,
}
INTRODUCTION: Final = """\
# Data dictionary

Every table and column, in the order that data walks. Written by `make docs-reference` from what describes the tables to
dbt (`dbt/models/`) and to ClickHouse (`src/energy_iot/sync/published_tables.py`); change it there.

Units are in the names: energy in kWh per interval, power in kW, which is kWh over the hours of the interval. Timestamps
are UTC and mark the start of the interval, unless the column says that it is local.
"""


@dataclass(frozen=True)
class Column:
    """A column with its type in its store."""

    name: str
    kind: str
    description: str


@dataclass(frozen=True)
class Table:
    """A table of a schema, or of ClickHouse."""

    schema: str
    name: str
    description: str
    columns: tuple[Column, ...]


def described_tables() -> list[Table]:
    """All tables, in the order of the page."""
    postgres = list(_postgres_tables())
    marts = {f"{table.schema}.{table.name}": table for table in postgres if table.schema == "marts"}
    published = [_published(table, marts[table.mart]) for table in TABLES]
    return sorted(postgres + published, key=lambda table: list(SCHEMAS).index(table.schema))


def to_markdown(tables: list[Table]) -> str:
    """The page."""
    parts = [INTRODUCTION, _table(("Table", "Holds"), [_overview(table) for table in tables])]
    about = _source_descriptions()
    for schema, description in SCHEMAS.items():
        parts.append(f"## {schema}\n\n{description or about[schema]}\n")
        for table in tables:
            if table.schema == schema:
                rows = [(f"`{column.name}`", column.kind, _cell(column.description)) for column in table.columns]
                parts.append(f"### {_title(table)}\n\n{table.description}\n")
                parts.append(_table(("Column", "Type", "Meaning"), rows))
    return "\n".join(parts)


def _postgres_tables() -> Iterator[Table]:
    for folder, document in _documents():
        for model in document.get("models", []):
            yield _described(folder, model)
        for source in document.get("sources", []):
            for table in source["tables"]:
                yield _described(source["schema"], table)


def _source_descriptions() -> dict[str, str]:
    return {source["schema"]: _text(source) for _, document in _documents() for source in document.get("sources", [])}


def _documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each file of dbt's YAML after the folder that it is in."""
    for path in sorted((PROJECT_DIR / "dbt/models").rglob("*.yml")):
        yield path.parent.name, yaml.safe_load(path.read_text(encoding="utf-8"))


def _described(schema: str, table: dict[str, Any]) -> Table:
    columns = tuple(Column(column["name"], column["data_type"], _text(column)) for column in table["columns"])
    return Table(schema, table["name"], _text(table), columns)


def _published(table: PublishedTable, mart: Table) -> Table:
    meanings = {column.name: column.description for column in mart.columns}
    columns = [Column(name, kind.partition(" codec")[0], meanings[name]) for name, kind in table.columns.items()]
    derived = [Column(column.name, column.kind, column.description) for column in table.derived]
    return Table(CLICKHOUSE, table.name, f"`{table.mart}`, sorted by `{table.order_by}`.", (*columns, *derived))


def _text(described: dict[str, Any]) -> str:
    text = " ".join(described["description"].split())
    return re.sub(r"var\('(\w+)'\)", r"`\1`", text)  # dbt's way to name a setting


def _title(table: Table) -> str:
    return table.name if table.schema == CLICKHOUSE else f"{table.schema}.{table.name}"


def _overview(table: Table) -> tuple[str, str]:
    first_sentence = table.description.partition(". ")[0].removesuffix(".")
    return f"[{_title(table)}](#{_title(table).replace('.', '')})", _cell(first_sentence)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = (headings, tuple("---" for _ in headings), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(to_markdown(described_tables()), encoding="utf-8")


if __name__ == "__main__":
    main()
