"""The pages that are written from code are as it would write them now (PostgreSQL's columns: see test_dbt_yaml)."""

from docs.tools import command_line, data_dictionary
from docs.tools.data_dictionary import CLICKHOUSE, described_tables
from energy_iot.settings import Settings
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.sync.published_tables import TABLES

STALE = "{} is stale; type: make docs-reference"


def test_the_data_dictionary_is_current() -> None:
    page = data_dictionary.PAGE
    assert page.read_text(encoding="utf-8") == data_dictionary.to_markdown(described_tables()), STALE.format(page.name)


def test_the_data_dictionary_names_each_column() -> None:
    page = data_dictionary.PAGE.read_text(encoding="utf-8")
    tables = described_tables()
    assert len(tables) > 40
    for table in tables:
        heading = f"\n### {table.name if table.schema == CLICKHOUSE else f'{table.schema}.{table.name}'}\n"
        assert page.count(heading) == 1
        rows = page.partition(heading)[2].partition("\n##")[0].splitlines()
        named = [row.split("`")[1] for row in rows if row.startswith("| `")]
        assert named == [column.name for column in table.columns]


def test_clickhouse_has_the_described_columns(settings: Settings) -> None:
    with open_clickhouse(settings) as clickhouse:
        for table in TABLES:
            clickhouse.command(f"create table {table.name} {table.definition(settings.time_zone)}")
        found = clickhouse.query(
            "select table, name, type from system.columns where database = currentDatabase() order by table, position"
        ).result_rows
    described = [
        (table.name, column.name, column.kind)
        for table in sorted(described_tables(), key=lambda table: table.name)
        for column in table.columns
        if table.schema == CLICKHOUSE
    ]
    assert [tuple(row) for row in found] == described


def test_the_command_line_reference_is_current() -> None:
    page = command_line.PAGE
    assert page.read_text(encoding="utf-8") == command_line.to_markdown(), STALE.format(page.name)
