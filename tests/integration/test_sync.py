"""The marts in ClickHouse equal the marts in PostgreSQL, or are as before; and only what changed is published anew."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import date, timedelta
from itertools import count
from typing import Any

import pytest
from chdb.state.sqlitelike import Connection
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from energy_iot.errors import StorageError, StoreUnavailableError
from energy_iot.pipeline import RunContext, RunOptions, StepReport
from energy_iot.serving.clickhouse_http import running_front
from energy_iot.settings import Settings
from energy_iot.storage.changes import read_state, record_change
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import Postgres
from energy_iot.sync import postgres_to_clickhouse
from energy_iot.sync.postgres_to_clickhouse import sync
from energy_iot.sync.published_tables import AFFECTED, TABLES
from tests.killed_sync import sync_killed
from tests.published_marts import METERS, Marts, assert_published, modes, published_rows

FIRST_DAY = date(2023, 12, 1)
HISTORY_DAYS = 7  # reaches 14 days
TIME_ZONE = "Pacific/Kiritimati"  # UTC+14: local dates differ from UTC dates most of the day
INCREMENTAL = {table.name: "incremental" if table.affected_days else "whole" for table in TABLES}
WHOLE = dict.fromkeys(INCREMENTAL, "whole")


@pytest.fixture
def context(make_context: Callable[..., RunContext]) -> RunContext:
    return make_context(time_zone=TIME_ZONE, history_days=HISTORY_DAYS)


@pytest.fixture
def marts(postgres: Postgres) -> Marts:
    """Empty marts."""
    marts = Marts(postgres, HISTORY_DAYS)
    marts.create()
    return marts


@pytest.fixture
def filled(marts: Marts) -> Marts:
    """Marts with 60 days of four meters over two quarters."""
    marts.change([(meter, day(number)) for meter in METERS for number in range(60)])
    return marts


def day(number: int) -> date:
    return FIRST_DAY + timedelta(days=number)


def assert_equal(marts: Marts, context: RunContext) -> None:
    with open_clickhouse(context.settings) as client:
        assert_published(marts, client, context.settings.time_zone)


# --- whole ----------------------------------------------------------------------------------------------------------


def test_every_value_arrives(context: RunContext, filled: Marts) -> None:
    report = sync(context)
    assert modes(report.details) == WHOLE
    rows = sum(len(filled.rows(("1",), table.mart)) for table in TABLES)
    assert report.rows_in == report.rows_out == rows > 1000
    assert_equal(filled, context)


def test_empty_marts_are_published_empty(context: RunContext, marts: Marts) -> None:
    marts.change([])
    assert sync(context).rows_out == 0
    assert_equal(marts, context)
    assert sync(context).skipped


def test_dates_before_1970_and_far_ahead_arrive(context: RunContext, marts: Marts) -> None:
    """Each lies in a quarter of its own, also in one batch of more quarters than ClickHouse takes by default."""
    marts.change([("m1", date(year, month, 1)) for year in (1925, *range(1960, 1987)) for month in (1, 4, 7, 10)])
    sync(context)
    assert_equal(marts, context)
    marts.change([("m1", date(1960, 1, 2)), ("m1", date(2080, 1, 2))])
    assert modes(sync(context).details) == INCREMENTAL
    assert_equal(marts, context)


# --- what is published anew -----------------------------------------------------------------------------------------


def test_nothing_new_is_skipped(context: RunContext, filled: Marts) -> None:
    sync(context)
    assert sync(context) == StepReport(0, 0, skipped="up to date")


def test_a_new_day_sends_its_rows_only(context: RunContext, filled: Marts) -> None:
    before = {name: figures["rows"] for name, figures in sync(context).details["tables"].items()}
    filled.change([("m1", day(60))], readings=9)
    report = sync(context)
    figures = report.details["tables"]
    assert modes(report.details) == INCREMENTAL
    assert (report.details["mode"], report.details["changed_days"]) == ("incremental", 1)
    assert (figures["anomaly_scores"]["rows_sent"], figures["anomaly_scores"]["rows_deleted"]) == (9, 0)
    assert figures["anomaly_scores"]["rows"] == before["anomaly_scores"] + 9
    # day 60 is 30 January: days and months from 26 December to 29 February, of which 36 + 1 exist
    assert figures["consumption_metrics"]["rows_sent"] == 37
    assert report.rows_in == report.rows_out == 46
    assert_equal(filled, context)


def test_losses_of_other_months_are_sent(context: RunContext, filled: Marts) -> None:
    months = [date(2023, 11, 3), date(2024, 1, 5), date(2024, 3, 30)]
    filled.change_losses(months)
    assert sync(context).details["tables"]["losses"]["rows"] == 9
    assert_equal(filled, context)

    filled.change_losses([date(2024, 1, 31), date(2024, 2, 1)])
    report = sync(context)
    losses = report.details["tables"]["losses"]
    assert modes(report.details) == INCREMENTAL
    assert (losses["rows_sent"], losses["rows_deleted"], losses["rows"], losses["affected_days"]) == (6, 3, 12, 2)
    assert_equal(filled, context)

    filled.change_losses([], affects_from=date(2024, 2, 15), nodes=0)  # the network is known no more from then on
    losses = sync(context).details["tables"]["losses"]
    assert (losses["rows_sent"], losses["rows_deleted"], losses["rows"]) == (0, 6, 6)
    assert_equal(filled, context)


def test_a_small_table_may_be_published_whole_each_time(
    context: RunContext, filled: Marts, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [
        replace(table, date=None, affected_days=None) if table.name == "losses" else table
        for table in postgres_to_clickhouse.TABLES
    ]
    monkeypatch.setattr(postgres_to_clickhouse, "TABLES", whole)
    filled.change_losses([date(2024, 1, 5)])
    sync(context)
    assert sync(context).skipped
    filled.change_losses([date(2024, 2, 5)])
    report = sync(context)
    assert modes(report.details) == INCREMENTAL | {"losses": "whole"}
    assert report.details["tables"]["losses"]["rows_sent"] == 6
    assert_equal(filled, context)


def test_a_late_day_sends_what_it_reaches(context: RunContext, filled: Marts) -> None:
    sync(context)
    filled.change([("m1", day(10))], readings=4)
    scores = sync(context).details["tables"]["anomaly_scores"]
    assert scores["affected_days"] == 1 + 2 * HISTORY_DAYS
    assert scores["rows_sent"] == scores["rows_deleted"] == 4 * (1 + 2 * HISTORY_DAYS)
    assert_equal(filled, context)


def test_a_day_that_is_gone_goes(context: RunContext, filled: Marts) -> None:
    sync(context)
    filled.change([(meter, day(number)) for meter in METERS for number in range(55, 60)], readings=0)
    report = sync(context)
    assert modes(report.details) == INCREMENTAL
    assert report.details["tables"]["anomaly_scores"]["rows_sent"] == 0
    assert_equal(filled, context)


def test_a_table_is_as_new_as_its_mart(context: RunContext, filled: Marts, postgres: Postgres) -> None:
    """What is loaded and not yet in the marts must not count as published."""
    change_id = filled.change([("m1", day(60))])
    with postgres.connect() as connection:
        newer = record_change(connection, "load", file_id=2, file_name="b", sha256="c", run_id=None)
        connection.execute("insert into raw_data.changed_days values (%s, 'm1', %s)", (newer, day(61)))
    sync(context)
    assert sync(context).skipped
    with postgres.connect() as connection:
        states = [read_state(connection, table.state_name) for table in TABLES]
    assert [state.change_id for state in states if state] == [change_id] * len(TABLES)
    filled.change([("m1", day(61))])
    assert modes(sync(context).details) == INCREMENTAL
    assert_equal(filled, context)


WHOLE_AGAIN: dict[str, Callable[[RunContext, Marts, Client], RunContext]] = {
    "asked for": lambda context, marts, client: replace(context, options=RunOptions(full_refresh=True)),
    "another time zone": lambda context, marts, client: replace(
        context, settings=context.settings.model_copy(update={"time_zone": "America/Lima"})
    ),
    "a mart made otherwise": lambda context, marts, client: marts.change([], fingerprint="otherwise") and context,
    "a mart of unknown make": lambda context, marts, client: marts.change([], fingerprint="") and context,
    "no table": lambda context, marts, client: client.command("drop table anomaly_scores") and context,
    "rows lost": lambda context, marts, client: (
        client.command("alter table anomaly_scores delete where reading_id = 1", settings={"mutations_sync": 1})
        and context
    ),
    "published by another": lambda context, marts, client: (
        client.command("alter table anomaly_scores modify comment 'change 1 of something else'") and context
    ),
}


@pytest.mark.parametrize("reason", WHOLE_AGAIN)
def test_it_is_published_whole_when_it_follows_from_something_else(
    context: RunContext, filled: Marts, reason: str
) -> None:
    sync(context)
    with open_clickhouse(context.settings) as client:
        changed = WHOLE_AGAIN[reason](context, filled, client)
    assert modes(sync(changed).details)["anomaly_scores"] == "whole"
    assert_equal(filled, changed)


# --- equal, whatever changed ----------------------------------------------------------------------------------------

CHANGES = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(METERS), st.integers(0, 130).map(day)), min_size=1, max_size=6, unique=True),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("interface", ["embedded", pytest.param("front", marks=pytest.mark.heavy)])
def test_incremental_equals_the_marts(context: RunContext, marts: Marts, interface: str) -> None:
    """Any days of any meters in any order: new, late, corrected, taken out."""

    @hypothesis_settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
    @given(first=CHANGES, later=CHANGES)
    def check(first: list[Any], later: list[Any]) -> None:
        marts.clear()
        for days, readings in first:
            marts.change(days, readings=readings)
        sync(context)
        for number, (days, readings) in enumerate(later):
            marts.change(days, readings=readings)
            if number % 2:  # also two changes in one sync
                continue
            assert modes(sync(context).details) == INCREMENTAL
            assert_equal(marts, context)
        sync(context)
        assert_equal(marts, context)

    with running_front(context.settings) if interface == "front" else open_clickhouse(context.settings):
        check()  # with the engine running all the time: its start takes longer than a sync


def test_parts_do_not_pile_up(context: RunContext, filled: Marts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sync adds a part; a process that ends at once leaves no time for ClickHouse's own merges."""
    most = 3
    monkeypatch.setattr(postgres_to_clickhouse, "MAX_PARTS_PER_QUARTER", most)
    sync(context)
    with open_clickhouse(context.settings) as client:
        client.command("system stop merges")
        for number in range(3 * most):
            filled.change([("m1", day(60 + number))])
            sync(context)
        parts = client.query(
            "select max(parts) from (select count() as parts from system.parts where active and database = "
            "currentDatabase() group by table, partition_id)"
        ).result_rows[0][0]
    assert 1 < parts <= most
    assert_equal(filled, context)


@pytest.mark.parametrize("table", [table for table in TABLES if table.affected_days], ids=lambda table: table.name)
def test_affected_rows_are_looked_up_by_index(context: RunContext, filled: Marts, table: Any) -> None:
    """No sync may read all history, whatever the planner knows of the tables."""
    filled.change([("m1", day(60))])
    with filled.postgres.connect() as connection:
        connection.execute(f"create temporary table {AFFECTED} as {table.affected_days(1, context.settings)}")
        plan = connection.execute(f"explain select * from {table.affected_rows}").fetchall()
    text = "\n".join(row[0] for row in plan)
    assert f"Scan on {table.mart_state_name} " in text or f" on {table.mart_state_name} " in text
    assert f"Seq Scan on {table.mart_state_name}" not in text


# --- compared -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["whole", "incremental"])
@pytest.mark.parametrize("damage", ["changed", "lost", "added", "swapped"])
def test_a_difference_is_an_error_and_readers_keep_the_old_rows(
    context: RunContext, filled: Marts, monkeypatch: pytest.MonkeyPatch, damage: str, mode: str
) -> None:
    sync(context)
    with open_clickhouse(context.settings) as client:
        before = published_rows(client, ("*",), "anomaly_scores")
    filled.change([("m1", day(59))])
    compare = postgres_to_clickhouse._compare

    def damage_then_compare(client: Client, table: Any, *rest: Any) -> None:
        if table.name == "anomaly_scores":
            _damage(client, table.shadow, damage)
        compare(client, table, *rest)

    monkeypatch.setattr(postgres_to_clickhouse, "_compare", damage_then_compare)
    asked = replace(context, options=RunOptions(full_refresh=mode == "whole"))
    with pytest.raises(StorageError, match="mart_anomaly_scores"):
        sync(asked)
    with open_clickhouse(context.settings) as client:
        assert published_rows(client, ("*",), "anomaly_scores") == before
    monkeypatch.undo()
    sync(context)
    assert_equal(filled, context)


def _damage(client: Client, shadow: str, damage: str) -> None:
    """Change the newest rows, which every sync of the test has sent."""
    (newest, value), (other, other_value) = client.query(
        f"select reading_id, active_power_kw from {shadow} order by reading_id desc limit 2"
    ).result_rows
    client.command(
        {
            "changed": f"alter table {shadow} update consumption_kwh = consumption_kwh + 1 where reading_id = {newest}",
            "lost": f"alter table {shadow} delete where reading_id = {newest}",
            "added": f"insert into {shadow} select * from {shadow} where reading_id = {newest}",
            # two values change places: counts and sums still agree, only the content hash tells
            "swapped": f"alter table {shadow} update active_power_kw = "
            f"if(reading_id = {newest}, {other_value!r}, {value!r}) where reading_id in ({newest}, {other})",
        }[damage],
        settings={"mutations_sync": 1},
    )


def test_rows_lost_elsewhere_in_the_shadow_are_noticed(
    context: RunContext, filled: Marts, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(context)
    filled.change([("m1", day(60))])
    take_over = postgres_to_clickhouse._take_over_unaffected

    def take_over_less(client: Client, table: Any) -> int:
        deleted = take_over(client, table)
        client.command(f"alter table {table.shadow} drop partition 20234")
        return deleted

    monkeypatch.setattr(postgres_to_clickhouse, "_take_over_unaffected", take_over_less)
    with pytest.raises(StorageError, match=r"rows: \d+ - \d+ \+ \d+ expected"):
        sync(context)


# --- interrupted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [4, pytest.param(24, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("mode", ["whole", "incremental"])
def test_killed_at_any_moment_the_next_sync_finishes(
    context: RunContext, filled: Marts, monkeypatch: pytest.MonkeyPatch, mode: str, kills: int
) -> None:
    context = replace(context, options=RunOptions(full_refresh=mode == "whole"))
    statements = count_statements(context, monkeypatch)
    filled.change([("m1", day(60))])
    total = statements()
    assert total > 15, "counting went wrong: the moments below would all be at the start"
    killed = 0
    for number in range(kills):
        with open_clickhouse(context.settings) as client:
            old = {table.name: published_rows(client, tuple(table.columns), table.name) for table in TABLES}
        filled.change([("m1", day(50)), (METERS[1], day(61 + number))])
        moment = 1 + total * number // kills
        killed += sync_killed(context, statement=moment, seconds=0.0005 + 0.002 * (number % 2)) == -signal.SIGALRM
        with open_clickhouse(context.settings) as client:
            for table in TABLES:
                columns = tuple(table.columns)
                assert published_rows(client, columns, table.name) in (
                    old[table.name],
                    filled.rows(columns, table.mart),
                )
        sync(context)
        assert_equal(filled, context)
    assert killed >= kills - 1  # the last statement may end before the clock does


def count_statements(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Publish whole once; the returned function syncs, and gives the number of its statements to the engine."""
    sync(context)

    def run() -> int:
        numbers, query = count(1), Connection.query
        with monkeypatch.context() as patch:
            patch.setattr(
                "chdb.state.sqlitelike.Connection.query",
                lambda *given, **named: (next(numbers), query(*given, **named))[1],
            )
            sync(context)
        return next(numbers) - 1

    return run


@pytest.mark.parametrize("mode", ["whole", "incremental"])
def test_readers_see_all_old_rows_or_all_new_ones(context: RunContext, filled: Marts, mode: str) -> None:
    context = replace(context, options=RunOptions(full_refresh=mode == "whole"))
    mark = "update marts.mart_anomaly_scores set temperature_c = %s where meter_id = 'm1'"
    seen: set[str] = set()
    with filled.postgres.connect() as connection:
        connection.execute(mark, (0,))
    sync(context)
    stop = threading.Event()

    def read() -> None:
        with open_clickhouse(context.settings) as client:
            while not stop.is_set():
                rows = client.query(
                    "select groupUniqArray(temperature_c), count() from anomaly_scores where meter_id = 'm1'"
                ).result_rows
                seen.add(str(rows))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for generation in range(1, 5):
            filled.change([("m1", day(number)) for number in range(60)])
            with filled.postgres.connect() as connection:
                connection.execute(mark, (generation,))
            assert modes(sync(context).details) == (WHOLE if mode == "whole" else INCREMENTAL)
    finally:
        stop.set()
        reader.join()
    assert seen <= {f"[([{generation}.0], 240)]" for generation in range(5)}
    assert len(seen) > 1


# --- going away -----------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ExitStack]]:
    """URL of a ClickHouse over HTTP, and what stops it when closed."""
    with ExitStack() as stack:
        front = stack.enter_context(running_front(Settings(home=tmp_path_factory.mktemp("server"))))
        yield front.address.url("pipeline"), stack


def test_a_server_that_goes_away_can_be_tried_again(
    context: RunContext, filled: Marts, server: tuple[str, ExitStack], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, running = server
    remote = replace(context, settings=Settings.model_validate(context.settings.model_dump() | {"clickhouse_url": url}))
    sync(remote)
    assert_equal(filled, remote)
    filled.change([("m1", day(60))])
    compare = postgres_to_clickhouse._compare

    def stop_then_compare(*given: Any) -> None:
        running.close()
        compare(*given)

    monkeypatch.setattr(postgres_to_clickhouse, "_compare", stop_then_compare)
    with pytest.raises(StoreUnavailableError) as caught:
        sync(remote)
    password = url.split(":")[2].split("@")[0]
    assert url.split("@")[1] in caught.value.problem
    assert password not in str(caught.value)
    assert password not in str(caught.getrepr(chain=True))
