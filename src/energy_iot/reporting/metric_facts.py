"""What monitoring needs to know of runs, data and model: facts that the runs stored, read in one snapshot.

No table of readings is looked at: this is asked every few seconds, also while a run is at work.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import psycopg
from psycopg.rows import class_row

from energy_iot.errors import StorageError
from energy_iot.ml.config import VERSION_IN_FORCE
from energy_iot.quality.slices import MARTS_GATE, STAGING_GATE
from energy_iot.serving.front_file import find_front
from energy_iot.settings import Settings
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import Postgres
from energy_iot.sync.published_tables import TABLES

RECENT_DAYS: Final = 30
PATIENCE_MILLISECONDS: Final = 10_000  # a migration may hold the tables

Row = TypeVar("Row")


@dataclass(frozen=True)
class RunFacts:
    """The runs; instants are Unix times, s.

    Attributes:
        running: How many are at work now.
        succeeded: How many of the latest 30 days ended so; likewise `failed` and `interrupted`.
        last_status: How the run ended that ended last; None before the first.
        last_start: When it began.
        last_end: When it ended.
        last_success: When the whole pipeline ended well last, also with nothing to do; a single step does not count.
    """

    running: int
    succeeded: int
    failed: int
    interrupted: int
    last_status: str | None
    last_start: float | None
    last_end: float | None
    last_success: float | None


@dataclass(frozen=True)
class StepFacts:
    """A step, as it went last; its figures are of the last time that it had something to do.

    Attributes:
        step: Its name.
        status: running, succeeded, skipped, failed or interrupted.
        warnings: How many, then.
        attempts: How often it was tried.
        seconds: How long it took.
        rows_in: Rows read.
        rows_out: Rows written.
    """

    step: str
    status: str
    attempts: int
    warnings: int | None
    seconds: float | None
    rows_in: int | None
    rows_out: int | None


@dataclass(frozen=True)
class LoadedFacts:
    """All that is loaded; the newest reading as Unix time, s."""

    files: int
    readings: int
    rejected: int
    newest_reading: float | None


@dataclass(frozen=True)
class SuiteFacts:
    """Rules of a suite that share an expectation and a severity, when it was judged last (a Unix time, s)."""

    suite: str
    expectation: str
    severity: str
    rules: int
    passed: int
    judged_at: float


@dataclass(frozen=True)
class ModelFacts:
    """The model in force; trained at a Unix time, s."""

    version: int
    trained_at: float


@dataclass(frozen=True)
class DerivedFacts:
    """A derived thing: how many changes of raw_data it has yet to follow, and its rows where they are kept."""

    name: str
    pending_changes: int
    row_count: int | None


@dataclass(frozen=True)
class TableFacts:
    """A published table in ClickHouse; nothing of one that is not there."""

    rows: int = 0
    size_bytes: int = 0
    parts: int = 0


@dataclass(frozen=True)
class ClickHouseFacts:
    """What ClickHouse said when it was asked.

    Attributes:
        answers: Whether it said anything.
        seconds: How long that took.
        tables: The published tables, by name.
    """

    answers: bool
    seconds: float | None = None
    tables: Mapping[str, TableFacts] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """One snapshot.

    Attributes:
        runs: The runs.
        steps: Of each step that ever ran.
        loaded: What was loaded.
        details: Figures of the last success of each step, as it stored them.
        suites: Of each suite's last judgement.
        model: None before the first training.
        derived: Of each derived thing.
        clickhouse: None where it was not asked: the embedded one is only while its front runs.
    """

    runs: RunFacts
    steps: Sequence[StepFacts]
    loaded: LoadedFacts
    details: Mapping[str, Mapping[str, Any]]
    suites: Sequence[SuiteFacts]
    model: ModelFacts | None
    derived: Sequence[DerivedFacts]
    clickhouse: ClickHouseFacts | None = None

    @property
    def published_rows(self) -> dict[str, int]:
        """Rows by table that ClickHouse should hold."""
        rows = {one.name: one.row_count for one in self.derived}
        published = {table.name: rows.get(table.state_name) for table in TABLES}
        return {name: count for name, count in published.items() if count is not None}


# What a run of the whole pipeline is: it looked at files, and either published or found nothing to do at all.
RUNS: Final = f"""
with ended as (
    select run_id, status, started_at, ended_at
    from quality.pipeline_runs
    where ended_at is not null
),
newest as (
    select status, started_at, ended_at from ended order by ended_at desc, run_id desc limit 1
)
select
    (select count(*) from quality.pipeline_runs where status = 'running') as running,
    count(*) filter (where status = 'succeeded' and recent) as succeeded,
    count(*) filter (where status = 'failed' and recent) as failed,
    count(*) filter (where status = 'interrupted' and recent) as interrupted,
    (select status from newest) as last_status,
    (select extract(epoch from started_at)::float8 from newest) as last_start,
    (select extract(epoch from ended_at)::float8 from newest) as last_end,
    (
        select extract(epoch from max(whole.ended_at))::float8
        from ended as whole
        where
            whole.status = 'succeeded'
            and exists (select from quality.step_runs where run_id = whole.run_id and step = 'check_source')
            and (
                exists (select from quality.step_runs where run_id = whole.run_id and step = 'sync_to_clickhouse')
                or not exists (select from quality.step_runs where run_id = whole.run_id and status <> 'skipped')
            )
    ) as last_success
from (
    select *, ended_at > now() at time zone 'utc' - interval '{RECENT_DAYS} days' as recent from ended
) as runs
"""

STEPS: Final = """
with last as (
    select distinct on (step) step, status, attempts from quality.step_runs order by step, id desc
),
worked as (
    select distinct on (step) *
    from quality.step_runs
    where status in ('succeeded', 'failed') and ended_at is not null
    order by step, id desc
)
select
    last.step,
    last.status,
    last.attempts,
    jsonb_array_length(worked.warnings) as warnings,
    extract(epoch from worked.ended_at - worked.started_at)::float8 as seconds,
    worked.rows_in,
    worked.rows_out
from last
left join worked on worked.step = last.step
order by last.step
"""

LOADED: Final = """
select
    count(*) as files,
    coalesce(sum(readings_loaded), 0)::bigint as readings,
    coalesce(sum(readings_rejected), 0)::bigint as rejected,
    extract(epoch from max(last_timestamp) filter (where content = 'readings'))::float8 as newest_reading
from raw_data.ingested_files
"""

DETAILS: Final = """
select distinct on (step) step, details || jsonb_build_object('rows_in', rows_in)
from quality.step_runs
where status = 'succeeded' and step in ('ingest_data', 'dbt_run_intermediate', 'ml_score')
order by step, id desc
"""

# A gate that passes what a judgement had stopped at may have nothing left to judge: the broken rows were taken out. The
# judgement is overtaken then, and the one before it counts.
SUITES: Final = """
with judgements as (
    select
        judged.suite,
        judged.run_id,
        max(judged.id) as last_id,
        max(judged.validated_at) as judged_at,
        bool_or(not judged.success and judged.severity = 'critical') as stopped
    from quality.validation_results as judged
    group by judged.suite, judged.run_id
),
latest as (
    select distinct on (judgements.suite) judgements.suite, judgements.run_id
    from judgements
    left join unnest(%(suites)s::text[], %(gates)s::text[]) as gates (suite, name) on gates.suite = judgements.suite
    left join quality.derived_states as passed on passed.name = gates.name
    where not judgements.stopped or passed.updated_at is null or passed.updated_at <= judgements.judged_at
    order by judgements.suite, judgements.last_id desc
)
select
    suite,
    expectation,
    severity,
    count(*) as rules,
    count(*) filter (where success) as passed,
    extract(epoch from max(validated_at))::float8 as judged_at
from quality.validation_results
inner join latest using (suite, run_id)
group by suite, expectation, severity
order by suite, expectation, severity
"""
GATES: Final = {suite: gate.name for gate in (STAGING_GATE, MARTS_GATE) for suite in gate.suites}

MODEL: Final = f"""
select model_version as version, extract(epoch from trained_at)::float8 as trained_at
from ml.model_versions
where model_version = ({VERSION_IN_FORCE})
"""

DERIVED: Final = """
select
    name,
    greatest((select coalesce(max(change_id), 0) from raw_data.changes) - change_id, 0) as pending_changes,
    row_count
from quality.derived_states
order by name
"""


def read_facts(settings: Settings, postgres: Postgres) -> Facts:
    """Read all facts.

    Raises:
        StorageError: PostgreSQL does not answer. That ClickHouse does not is one of the facts.
    """
    with postgres.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute(f"set local statement_timeout = {PATIENCE_MILLISECONDS}")
        (runs,) = _read(connection, RunFacts, RUNS)
        (loaded,) = _read(connection, LoadedFacts, LOADED)
        facts = Facts(
            runs=runs,
            steps=_read(connection, StepFacts, STEPS),
            loaded=loaded,
            details=dict(connection.execute(DETAILS).fetchall()),
            suites=_read(connection, SuiteFacts, SUITES, suites=list(GATES), gates=list(GATES.values())),
            model=next(iter(_read(connection, ModelFacts, MODEL)), None),
            derived=_read(connection, DerivedFacts, DERIVED),
        )
    return replace(facts, clickhouse=_ask_clickhouse(settings))


def _read(connection: psycopg.Connection, kind: type[Row], query: str, **values: list[str]) -> list[Row]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query.encode(), values or None).fetchall()


def _ask_clickhouse(settings: Settings) -> ClickHouseFacts | None:
    """What ClickHouse holds; None where it is not asked.

    Opening the embedded folder would keep a run out of it: it is asked only where another process has it anyway.
    """
    started = time.monotonic()
    try:
        if settings.clickhouse_url is None and find_front(settings.home) is None:
            return None
        with open_clickhouse(settings) as clickhouse:
            found = clickhouse.query(
                "select name, total_bytes, active_parts from system.tables "
                "where database = currentDatabase() and name in {names:Array(String)}",
                parameters={"names": [table.name for table in TABLES]},
            ).result_rows
            # rows that a DELETE hid are still in total_rows; counting is as cheap while there are none
            counts = " union all ".join(f"select '{name}', count() from {name}" for name, *_ in found)
            rows = {name: int(count) for name, count in clickhouse.query(counts).result_rows} if found else {}
    except StorageError:
        return ClickHouseFacts(answers=False)
    tables = dict.fromkeys((table.name for table in TABLES), TableFacts())
    tables |= {name: TableFacts(rows[name], int(size or 0), int(parts or 0)) for name, size, parts in found}
    return ClickHouseFacts(True, time.monotonic() - started, tables)
