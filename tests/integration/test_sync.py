"""The marts in ClickHouse equal the marts in PostgreSQL, or are as before."""

from collections.abc import Callable

import pytest
from clickhouse_connect.driver.client import Client

from energy_iot.errors import StorageError
from energy_iot.pipeline import RunContext
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import Postgres
from energy_iot.sync import postgres_to_clickhouse
from energy_iot.sync.postgres_to_clickhouse import TABLES, sync

MARTS = """
create table marts.mart_consumption_metrics as
select 'm' || i % 3 as meter_id, 'day'::text as period_type, date '1969-12-30' + i as period_start,
       i * 0.1::double precision as consumption_kwh, 1.0::double precision as avg_power_kw,
       case when i % 5 > 0 then 2.0::double precision end as peak_power_kw, 0.5::double precision as load_factor,
       null::double precision as previous_consumption_kwh, null::double precision as consumption_change_pct,
       48::bigint as reading_count, 48::bigint as expected_reading_count, 1.0::double precision as completeness
from generate_series(1, 400) as i;

create table marts.mart_anomaly_scores as
select i::bigint as reading_id, 'meter "' || i % 7 || '" é' as meter_id,
       timestamp '2006-01-01 00:00:00.123456' + i * interval '1 minute' as reading_timestamp,
       sin(i) as consumption_kwh, cos(i) as active_power_kw, i / 5000.0::double precision as anomaly_score,
       i % 100 = 0 as is_anomaly, case when i % 100 = 0 then 'unusual_pattern' end as anomaly_type,
       case when i % 9 > 0 then sin(i) end as hour_of_week_z_score, cos(i) as consumption_vs_avg_ratio,
       null::double precision as temperature_c, 1 as model_version, now() at time zone 'utc' as scored_at
from generate_series(1, 5000) as i;
"""


@pytest.fixture
def context(postgres: Postgres, make_context: Callable[..., RunContext]) -> RunContext:
    with postgres.connect() as connection:
        connection.execute(MARTS)
    return make_context()


def _published(client: Client) -> dict[str, int]:
    return {table.name: client.query(f"select count() from {table.name}").result_rows[0][0] for table in TABLES}


def test_every_value_arrives(context: RunContext, postgres: Postgres) -> None:
    report = sync(context)
    assert (report.rows_in, report.rows_out) == (5400, 5400)
    with open_clickhouse(context.settings) as client, postgres.connect() as connection:
        for table in TABLES:
            columns = ", ".join(table.columns)
            expected = connection.execute(f"select {columns} from {table.mart} order by {columns}").fetchall()
            found = client.query(f"select {columns} from {table.name}").result_rows
            assert sorted(map(str, found)) == sorted(map(str, expected))
        assert {row[0] for row in client.query("show tables").result_rows} == {table.name for table in TABLES}


def test_again_replaces_and_does_not_double(context: RunContext, postgres: Postgres) -> None:
    first = sync(context)
    assert sync(context).details == first.details
    with postgres.connect() as connection:
        connection.execute("delete from marts.mart_anomaly_scores where reading_id > 10")
    sync(context)
    with open_clickhouse(context.settings) as client:
        assert _published(client) == {"consumption_metrics": 400, "anomaly_scores": 10}


def test_empty_marts_are_published_empty(context: RunContext, postgres: Postgres) -> None:
    sync(context)
    with postgres.connect() as connection:
        connection.execute("truncate marts.mart_anomaly_scores, marts.mart_consumption_metrics")
    assert sync(context).rows_out == 0
    with open_clickhouse(context.settings) as client:
        assert set(_published(client).values()) == {0}


def test_the_local_date_follows_the_time_zone(context: RunContext) -> None:
    settings = context.settings.model_copy(update={"time_zone": "Pacific/Kiritimati"})  # UTC+14
    sync(RunContext(settings, context.run_id))
    with open_clickhouse(settings) as client:
        (row,) = client.query("select min(reading_timestamp), min(reading_date) from anomaly_scores").result_rows
    assert f"{row[0]:%Y-%m-%d %H:%M}" == "2006-01-01 00:01"
    assert f"{row[1]:%Y-%m-%d}" == "2006-01-01"
    with open_clickhouse(settings) as client:
        (row,) = client.query(
            "select min(reading_date) from anomaly_scores where reading_timestamp >= '2006-01-01 10:00:00'"
        ).result_rows
    assert f"{row[0]:%Y-%m-%d}" == "2006-01-02"


@pytest.mark.parametrize(
    "change",
    [
        "alter table {} update consumption_kwh = consumption_kwh + 1 where reading_id = 7",
        "alter table {} delete where reading_id = 7",
        "insert into {} (reading_id) values (7)",
        # two values change places: counts and sums still agree, only the content hash tells
        "alter table {} update active_power_kw = if(reading_id = 1, cos(2), cos(1)) where reading_id in (1, 2)",
    ],
    ids=["changed", "lost", "added", "swapped"],
)
def test_a_difference_is_an_error_and_readers_keep_the_old_rows(
    context: RunContext, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    sync(context)
    with postgres.connect() as connection:
        connection.execute("delete from marts.mart_anomaly_scores where reading_id > 100")
    compare = postgres_to_clickhouse._compare

    def damage_then_compare(client: Client, table: postgres_to_clickhouse.PublishedTable, *rest: object) -> None:
        if table.name == "anomaly_scores":
            client.command(
                change.format("anomaly_scores_incoming") + (" settings mutations_sync = 1" * ("alter" in change))
            )
        compare(client, table, *rest)

    monkeypatch.setattr(postgres_to_clickhouse, "_compare", damage_then_compare)
    with pytest.raises(StorageError, match="mart_anomaly_scores"):
        sync(context)
    with open_clickhouse(context.settings) as client:
        assert _published(client)["anomaly_scores"] == 5000
