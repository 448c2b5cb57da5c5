"""Marts in PostgreSQL that change as the pipeline changes them, without the pipeline; and what ClickHouse has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from energy_iot.storage.changes import DerivedState, record_change, write_state
from energy_iot.storage.postgres import Postgres
from energy_iot.sync.published_tables import TABLES

METERS: Final = ("m1", 'meter "2" é', "it's\\3\t", "")
MARTS: Final = """
create table marts.mart_consumption_metrics (
    meter_id text, period_type text, period_start date, consumption_kwh double precision, avg_power_kw double precision,
    peak_power_kw double precision, load_factor double precision, previous_consumption_kwh double precision,
    consumption_change_pct double precision, reading_count bigint, expected_reading_count bigint,
    completeness double precision
);
create index on marts.mart_consumption_metrics (meter_id, period_start);
create table marts.mart_anomaly_scores (
    reading_id bigint, meter_id text, reading_timestamp timestamp, consumption_kwh double precision,
    active_power_kw double precision, anomaly_score double precision, is_anomaly boolean, anomaly_type text,
    hour_of_week_z_score double precision, consumption_vs_avg_ratio double precision, temperature_c double precision,
    model_version integer, scored_at timestamp
);
create index on marts.mart_anomaly_scores (meter_id, (cast(reading_timestamp as date)));
create table intermediate.int_readings_daily (meter_id text, reading_date date);
create unique index on intermediate.int_readings_daily (meter_id, reading_date);
create sequence reading_ids;
"""
# `changed` holds the days; what the change reaches is made anew, and some of it comes out otherwise
CHANGE: Final = """
insert into raw_data.changed_days (change_id, meter_id, reading_date) select {change_id}, meter_id, day from changed;
delete from marts.mart_anomaly_scores
where (meter_id, cast(reading_timestamp as date)) in (select meter_id, day from changed);
delete from intermediate.int_readings_daily where (meter_id, reading_date) in (select meter_id, day from changed);
delete from marts.mart_consumption_metrics
where (meter_id, period_type, period_start) in (
    select meter_id, 'day', day from changed union select meter_id, 'month', date_trunc('month', day)::date from changed
);
insert into marts.mart_anomaly_scores
select
    nextval('reading_ids'), meter_id, day + i * interval '1 day' / greatest({readings}, 1) - interval '1 microsecond',
    random(), 2 * random(), random(), false, 'unusual_pattern', case when i % 3 > 0 then random() - 0.5 end, random(),
    null, 1, timestamp '2024-01-01 00:00:00.123456'
from changed, generate_series(1, {readings}) as i;
insert into intermediate.int_readings_daily select meter_id, day from changed where {readings} > 0;
insert into marts.mart_consumption_metrics
select meter_id, 'day', day, random(), 1, null, 0.5, null, null, {readings}, 48, 1 from changed where {readings} > 0;
insert into marts.mart_consumption_metrics
select distinct on (meter_id, date_trunc('month', day))
    meter_id, 'month', date_trunc('month', day)::date, random(), 1, null, 0.5, null, null, 1, 48, 1 from changed;
update marts.mart_anomaly_scores as marts set anomaly_score = random(), is_anomaly = random() < 0.5
from changed where marts.meter_id = changed.meter_id
and cast(reading_timestamp as date) between day and day + {reach} and random() < 0.5;
update marts.mart_consumption_metrics as marts set previous_consumption_kwh = random()
from changed where marts.meter_id = changed.meter_id and random() < 0.5
and period_start >= date_trunc('month', day) - interval '6 days'
and period_start < date_trunc('month', day) + interval '2 months';
"""


@dataclass(frozen=True)
class Marts:
    """The two marts, empty at first.

    Attributes:
        postgres: Their database.
        history_days: As in the settings.
    """

    postgres: Postgres
    history_days: int = 56

    def create(self) -> None:
        """Make the tables."""
        with self.postgres.connect() as connection:
            connection.execute(MARTS)

    def clear(self) -> None:
        """Forget everything, also what was published."""
        with self.postgres.connect() as connection:
            connection.execute(
                "truncate marts.mart_consumption_metrics, marts.mart_anomaly_scores, intermediate.int_readings_daily, "
                "raw_data.changes, raw_data.changed_days, quality.derived_states"
            )

    def change(self, days: Iterable[tuple[str, date]], *, readings: int = 4, fingerprint: str = "made so") -> int:
        """Give the days new readings (0: none any more), follow in both marts, and return the change's number."""
        with self.postgres.connect() as connection:
            change_id = record_change(connection, "load", file_id=1, file_name="a", sha256="b", run_id=None)
            connection.execute("create temporary table changed (meter_id text, day date) on commit drop")
            with connection.cursor() as cursor:
                cursor.executemany("insert into changed values (%s, %s)", list(days))
            connection.execute(
                CHANGE.format(change_id=change_id, readings=readings, reach=2 * self.history_days).encode()
            )
            for table in TABLES:
                write_state(connection, DerivedState(table.mart_state_name, change_id, fingerprint))
        return change_id

    def rows(self, columns: Sequence[str], mart: str) -> list[str]:
        """The rows of a mart as texts, sorted."""
        with self.postgres.connect() as connection:
            return sorted(map(str, connection.execute(f"select {', '.join(columns)} from {mart}".encode()).fetchall()))


def published_rows(client: Client, columns: Sequence[str], name: str) -> list[str]:
    """The rows of a published table as texts, sorted."""
    return sorted(map(str, client.query(f"select {', '.join(columns)} from {name}").result_rows))


def assert_published(marts: Marts, client: Client, time_zone: str = "UTC") -> None:
    """ClickHouse holds the marts row by row, in two tables and no others."""
    for table in TABLES:
        assert published_rows(client, tuple(table.columns), table.name) == marts.rows(tuple(table.columns), table.mart)
    assert {row[0] for row in client.query("show tables").result_rows} == {table.name for table in TABLES}
    misdated = f"select count() from anomaly_scores where reading_date <> toDate32(reading_timestamp, '{time_zone}')"
    assert client.query(misdated).result_rows == [(0,)]


def modes(details: Any) -> dict[str, str]:
    """How each table was published, from a step's report."""
    return {name: figures["mode"] for name, figures in details["tables"].items()}
