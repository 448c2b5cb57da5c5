"""The queries behind the dashboards' charts: through Superset, and the same ones on PostgreSQL, in one run.

A chart is asked for as a browser asks, by Superset's interface and without a cache, so that its figures hold the whole
way: Superset, the front, ClickHouse, and back. Beside them the bare statement on both engines.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import psycopg
import sqlglot
from clickhouse_connect.driver.client import Client
from rich import box
from rich.table import Table
from sqlglot import exp

from benchmarks.measuring import run_command
from energy_iot.serving.superset_bundle import make_bundle
from energy_iot.serving.superset_client import list_all, logged_in
from energy_iot.serving.superset_server import read_address
from energy_iot.settings import Settings, load_settings
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import open_postgres
from energy_iot.sync.published_tables import TABLES
from tests.live_server import serving

SECONDS = ("cold_seconds", "warm_p95_seconds", "clickhouse_seconds", "postgres_seconds")
WARM_ROUNDS = 20
STATEMENT_ROUNDS = 5
READINGS = "anomaly_scores"  # the other tables hold days and months
# Functions of ClickHouse for PostgreSQL, so that the statements stay the same.
FUNCTIONS = """
create schema clickhouse_functions;
set search_path to clickhouse_functions, public;
create function arraystringconcat(parts text[], glue text) returns text language sql immutable
    return array_to_string(parts, glue);
create function array_slice(parts text[], first integer, length integer) returns text[] language sql immutable
    return parts[first : first + length - 1];
create function split(body text, glue text) returns text[] language sql immutable return string_to_array(body, glue);
create function encodeurlcomponent(body text) returns text language sql immutable return body;
create function encodexmlcomponent(body text) returns text language sql immutable return body;
create function todayofweek(day timestamp, mode integer) returns integer language sql immutable
    return extract(dow from day);
create function tomonth(day timestamp) returns integer language sql immutable return extract(month from day);
create function todatetime(day timestamp) returns timestamp language sql immutable return day;
"""


def measure(file: Path, scratch: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the pipeline on the file, then ask for each chart of the English dashboards.

    Returns:
        charts: name, rows, is_over_readings, cold_seconds (its first request after Superset's start), warm_p95_seconds,
        and the median seconds of its statement on clickhouse and postgres.
    """
    home = scratch / "dashboards"
    say(f"energy-iot run {file.name} ...")
    run_command(home, "run", file)
    settings = load_settings(home=home)
    names = {str(document["uuid"]) for name, document in make_bundle("en").items() if name.startswith("charts/")}
    start = monotonic()
    with (
        serving(home, "superset"),
        logged_in(read_address(settings)) as superset,
        open_postgres(settings) as postgres,
        postgres.connect() as connection,
        open_clickhouse(settings) as clickhouse,
    ):
        start_seconds = monotonic() - start
        _copy_tables(connection, settings)
        charts = []
        for chart in list_all(superset, "chart"):
            if chart["uuid"] in names:
                say(f"{chart['slice_name']} ...")
                charts.append(_measure_chart(superset, clickhouse, connection, chart))
        connection.rollback()
    return {"file": file.name, "superset_start_seconds": start_seconds, "charts": charts}


def _copy_tables(connection: psycopg.Connection, settings: Settings) -> None:
    """The marts with the columns that ClickHouse stores beside theirs, under the names that they have there."""
    connection.execute(FUNCTIONS)
    local = f"(reading_timestamp at time zone 'utc' at time zone '{settings.time_zone}')"
    for table in TABLES:
        derived = (
            f", cast({local} as date) as reading_date, cast(extract(hour from {local}) as integer) as hour_of_day, "
            f"cast(extract(dow from {local}) as integer) as day_of_week"
            if table.derived
            else ""
        )
        connection.execute(f"create table {table.name} as select *{derived} from {table.mart}".encode())
        connection.execute(f"create index on {table.name} ({table.order_by.strip('()')})".encode())
        connection.execute(f"analyze {table.name}".encode())


def _measure_chart(
    superset: httpx.Client, clickhouse: Client, connection: psycopg.Connection, chart: dict[str, Any]
) -> dict[str, Any]:
    address = f"/chart/{chart['id']}/data/"
    cold, answer = _timed(lambda: superset.get(address).raise_for_status().json())
    warm = [_timed(lambda: superset.get(address).raise_for_status())[0] for _ in range(WARM_ROUNDS)]
    (described,) = superset.get(address, params={"type": "query"}).raise_for_status().json()["result"]
    statement = described["query"]
    translated = for_postgres(statement)
    return {
        "name": chart["slice_name"],
        "rows": answer["result"][0]["rowcount"],
        "is_over_readings": READINGS in statement,
        "cold_seconds": cold,
        "warm_p95_seconds": statistics.quantiles(warm, n=20)[-1],
        "clickhouse_seconds": _median(lambda: clickhouse.query(statement).result_rows),
        "postgres_seconds": _median(lambda: connection.execute(translated.encode()).fetchall()),
    }


def for_postgres(statement: str) -> str:
    """The same statement as PostgreSQL understands it; there truth values are no numbers."""

    def turned(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Sum | exp.Avg) and (
            node.this.name == "is_anomaly" or isinstance(node.this, exp.Predicate)
        ):
            return type(node)(this=exp.cast(node.this, "int"))
        if isinstance(node, exp.Cast) and node.to.this is exp.DType.ENUM8:
            named = [exp.If(this=one.expression, true=one.this) for one in node.to.expressions]
            return exp.Case(this=exp.cast(node.this, "int"), ifs=named)
        if isinstance(node, exp.Star):
            return exp.Star()  # EXCEPT leaves out columns that nobody asks for
        if node.name.lower() == "multiif":
            *pairs, otherwise = node.expressions
            conditions = zip(pairs[::2], pairs[1::2], strict=True)
            return exp.Case(ifs=[exp.If(this=one, true=then) for one, then in conditions], default=otherwise)
        return node

    translated: str = sqlglot.parse_one(statement, read="clickhouse").transform(turned).sql("postgres")
    return translated


def _timed(ask: Callable[[], Any]) -> tuple[float, Any]:
    start = monotonic()
    found = ask()
    return monotonic() - start, found


def _median(ask: Callable[[], Any]) -> float:
    return statistics.median(_timed(ask)[0] for _ in range(STATEMENT_ROUNDS))


def tables(figures: dict[str, Any]) -> list[Table]:
    """Chart by chart, and the medians."""
    table = Table(title=f"{figures['file']}: charts of the dashboards", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("chart")
    for heading in ("rows", "s, cold", "s, warm p95", "s, ClickHouse", "s, PostgreSQL", "times"):
        table.add_column(heading, justify="right")
    ratios = [chart["postgres_seconds"] / chart["clickhouse_seconds"] for chart in figures["charts"]]
    over_readings = [ratio for ratio, chart in zip(ratios, figures["charts"], strict=True) if chart["is_over_readings"]]
    for ratio, chart in zip(ratios, figures["charts"], strict=True):
        shown = (f"{chart[key]:.3f}" for key in SECONDS)
        table.add_row(chart["name"], str(chart["rows"]), *shown, f"{ratio:.1f}")
    table.caption = (
        f"PostgreSQL takes {statistics.median(over_readings):.1f} times as long in the median of the "
        f"{len(over_readings)} charts over readings, {statistics.median(ratios):.1f} of all; Superset was ready "
        f"{figures['superset_start_seconds']:.0f} s after its start"
    )
    return [table]
