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
create table marts.mart_losses (
    node_id text, node_type text, parent_id text, month_start date, energy_in_kwh double precision,
    energy_metered_kwh double precision, technical_loss_kwh double precision, unexplained_kwh double precision,
    unexplained_share double precision, unexplained_value double precision, currency text,
    completeness double precision, meter_count bigint
);
create index on marts.mart_losses (month_start, node_id);
create table marts.mart_inspection_list (
    meter_id text, suspicion_rank bigint, suspicion_score double precision, confidence double precision, reasons text,
    suspected_since date, lost_kwh double precision, lost_value double precision, currency text, transformer_id text,
    transformer_unexplained_share double precision, customer_class text, last_inspected_on date,
    last_found_theft boolean, suppressed_cause text, as_of_date date, model_version integer, ranked_at timestamp
);
create table marts.mart_meters (
    meter_id text, transformer_id text, feeder_id text, customer_class text, contracted_power_kw double precision,
    is_prepaid boolean, latitude double precision, longitude double precision, valid_from date, valid_to date
);
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

# the months of `changed`, and those from `affects_from` on, are made anew
CHANGE_LOSSES: Final = """
insert into raw_data.changed_node_days (change_id, node_id, reading_date) select {change_id}, 'n', day from changed;
create temporary table other_months on commit drop as
select distinct date_trunc('month', day)::date as month_start from changed
union
select month::date
from generate_series(date_trunc('month', {affects_from}::date), date '2024-12-01', interval '1 month') as month;
delete from marts.mart_losses where month_start in (select month_start from other_months);
insert into marts.mart_losses
select
    node, case when node = 'f' then 'feeder' else 'transformer' end, nullif('f', node), month_start, 100 * random(), 80,
    5, random() - 0.5, case when random() < 0.5 then random() end, case when node = 'f' then random() end,
    case when node = 'f' then 'XOF' end, random(), 40
from other_months, unnest(array['f', 't1', 't "2" é']) as node
where {nodes} > 0;
"""


@dataclass(frozen=True)
class Marts:
    """The marts, empty at first.

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
                "truncate marts.mart_consumption_metrics, marts.mart_anomaly_scores, marts.mart_losses, "
                "intermediate.int_readings_daily, raw_data.changes, raw_data.changed_days, raw_data.changed_node_days, "
                "quality.derived_states"
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

    def change_losses(self, days: Iterable[date], *, affects_from: date | None = None, nodes: int = 3) -> int:
        """Make losses of the days' months anew, and of all from `affects_from` to the end of 2024; 0 nodes: none."""
        with self.postgres.connect() as connection:
            change_id = record_change(
                connection,
                "load",
                file_id=1,
                file_name="n",
                sha256="b",
                run_id=None,
                content="network_nodes" if affects_from else "network_readings",
                affects_from=affects_from,
            )
            connection.execute("create temporary table changed (day date) on commit drop")
            with connection.cursor() as cursor:
                cursor.executemany("insert into changed values (%s)", [(one,) for one in days])
            first = f"'{affects_from}'" if affects_from else "null"
            connection.execute(CHANGE_LOSSES.format(change_id=change_id, affects_from=first, nodes=nodes).encode())
            for table in TABLES:
                write_state(connection, DerivedState(table.mart_state_name, change_id, "made so"))
        return change_id

    def rows(self, columns: Sequence[str], mart: str) -> list[str]:
        """The rows of a mart as texts, sorted."""
        with self.postgres.connect() as connection:
            return sorted(map(str, connection.execute(f"select {', '.join(columns)} from {mart}".encode()).fetchall()))


def published_rows(client: Client, columns: Sequence[str], name: str) -> list[str]:
    """The rows of a published table as texts, sorted."""
    return sorted(map(str, client.query(f"select {', '.join(columns)} from {name}").result_rows))


def assert_published(marts: Marts, client: Client, time_zone: str = "UTC") -> None:
    """ClickHouse holds the marts row by row, and no other tables."""
    for table in TABLES:
        assert published_rows(client, tuple(table.columns), table.name) == marts.rows(tuple(table.columns), table.mart)
    assert {row[0] for row in client.query("show tables").result_rows} == {table.name for table in TABLES}
    misdated = (
        "select count() from anomaly_scores where (reading_date, hour_of_day, day_of_week) <> "
        "(toDate32(local), toHour(local), toDayOfWeek(local, 2))"
    )
    local = f"toTimeZone(reading_timestamp, '{time_zone}') as local"
    assert client.query(f"with {local} {misdated}").result_rows == [(0,)]


def modes(details: Any) -> dict[str, str]:
    """How each table was published, from a step's report."""
    return {name: figures["mode"] for name, figures in details["tables"].items()}
