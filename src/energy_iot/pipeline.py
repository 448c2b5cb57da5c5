"""The ordered table of steps, and running them: one, all, or what an interrupted run left."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

from energy_iot import __version__
from energy_iot.errors import EnergyIoTError, StorageError, UsageError
from energy_iot.reporting.progress import Progress
from energy_iot.settings import PROJECT_DIR, Settings

if TYPE_CHECKING:
    from energy_iot.storage.postgres import Postgres


@dataclass(frozen=True)
class Step:
    """One row of the table: `function` is a name, so that importing this module loads nothing heavy."""

    name: str
    function: str
    command: tuple[str, ...]
    description: str


STEPS: Final[tuple[Step, ...]] = (
    Step(
        "check_source",
        "energy_iot.ingestion.load_data:check_source",
        ("check-source",),
        "Recognise the files: known format, readable, new",
    ),
    Step(
        "ingest_data",
        "energy_iot.ingestion.load_data:ingest_data",
        ("ingest",),
        "Load new files into raw_data, each whole or not at all",
    ),
    Step(
        "dbt_run_staging",
        "energy_iot.transformation.dbt:run_staging",
        ("transform", "staging"),
        "One clean reading for each meter and instant",
    ),
    Step(
        "dbt_run_intermediate",
        "energy_iot.transformation.dbt:run_intermediate",
        ("transform", "intermediate"),
        "Hourly, daily, gaps and features",
    ),
    Step(
        "ge_validate_staging",
        "energy_iot.quality.validation:validate_staging",
        ("validate", "staging"),
        "Judge the feed; a critical failure stops the run",
    ),
    Step(
        "ml_score",
        "energy_iot.ml.score_anomalies:score",
        ("score",),
        "Score each reading; trains first when no model fits",
    ),
    Step(
        "dbt_run_marts",
        "energy_iot.transformation.dbt:run_marts",
        ("transform", "marts"),
        "Consumption metrics and anomaly scores for analysts",
    ),
    Step(
        "ge_validate_marts",
        "energy_iot.quality.validation:validate_marts",
        ("validate", "marts"),
        "Judge the marts: figures that must agree do agree",
    ),
    Step(
        "sync_to_clickhouse",
        "energy_iot.sync.postgres_to_clickhouse:sync",
        ("sync",),
        "Publish the marts to ClickHouse and compare both sides",
    ),
)


@dataclass(frozen=True)
class StepReport:
    """What a step did; stored in quality.step_runs and shown in the summary.

    Attributes:
        rows_in: Rows read.
        rows_out: Rows written (validation: rows judged).
        warnings: Sentences for a person; the step succeeded all the same.
        details: Figures of the step, JSON-able.
        skipped: Why there was nothing to do, or None.
    """

    rows_in: int
    rows_out: int
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    skipped: str | None = None


@dataclass(frozen=True)
class RunOptions:
    """What was asked of a run; kept with it, so that a step in another process sees the same."""

    files: tuple[Path, ...] = ()
    source: str | None = None

    def to_json(self) -> str:
        """JSON text with absolute paths."""
        return json.dumps(asdict(self) | {"files": [str(file.absolute()) for file in self.files]})


@dataclass(frozen=True)
class RunContext:
    """What every step receives."""

    settings: Settings
    run_id: str
    options: RunOptions = RunOptions()
    progress: Progress = field(default_factory=Progress)


StepFunction = Callable[[RunContext], StepReport]


@dataclass(frozen=True)
class StepRun:
    """A finished step: its report, and how long it took."""

    step: str
    status: str
    seconds: float
    report: StepReport


@dataclass(frozen=True)
class RunSummary:
    """A finished run."""

    run_id: str
    status: str
    seconds: float
    steps: tuple[StepRun, ...]


def find_step(name: str) -> Step:
    """The row of `STEPS` called `name`.

    Raises:
        UsageError: There is none.
    """
    for step in STEPS:
        if step.name == name:
            return step
    raise UsageError(f"no step '{name}'", fix=f"choose one of: {', '.join(step.name for step in STEPS)}")


def start_run(settings: Settings, options: RunOptions) -> str:
    """Record the start of a run in quality.pipeline_runs; returns its id, which sorts by time."""
    from energy_iot.storage.postgres import open_postgres

    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:8]}"
    with open_postgres(settings) as postgres, postgres.connect() as connection:
        connection.execute(
            "insert into quality.pipeline_runs (run_id, status, options, package_version) "
            "values (%s, 'running', %s, %s)",
            (run_id, options.to_json(), __version__),
        )
    return run_id


def end_run(settings: Settings, run_id: str, *, error: BaseException | None = None, complete: bool = False) -> None:
    """Record the end of a run; `complete` says that all steps ran, so that the same state need not run again."""
    from energy_iot.storage.postgres import open_postgres

    with open_postgres(settings) as postgres, postgres.connect() as connection:
        connection.execute(
            "update quality.pipeline_runs set status = %s, ended_at = now() at time zone 'utc', error = %s, "
            "state_fingerprint = %s where run_id = %s",
            (
                "failed" if error else "succeeded",
                describe_error(error) if error else None,
                state_fingerprint(settings, postgres) if complete and not error else None,
                run_id,
            ),
        )


def describe_error(error: BaseException) -> str:
    """One text for the tables of runs: our errors as they are, others with their type."""
    if isinstance(error, EnergyIoTError):
        return str(error)
    return f"{type(error).__name__}: {error}".strip().removesuffix(":")


def run_step(name: str, context: RunContext) -> StepRun:
    """Run one step and record it in quality.step_runs; an error is recorded, then raised as it was."""
    from psycopg.types.json import Jsonb

    from energy_iot.storage.postgres import open_postgres

    step = find_step(name)
    started = time.monotonic()
    with open_postgres(context.settings) as postgres:
        with postgres.connect() as connection:
            row = connection.execute(
                "insert into quality.step_runs (run_id, step, status) values (%s, %s, 'running') returning id",
                (context.run_id, name),
            ).fetchone()
        assert row is not None
        finish = (
            "update quality.step_runs set status = %s, ended_at = now() at time zone 'utc', rows_in = %s, "
            "rows_out = %s, warnings = %s, details = %s, error = %s where id = %s"
        )
        try:
            # looked up now: the step's libraries load when it runs, not for --help
            report = cast("StepFunction", resolve_name(step.function))(context)
        except BaseException as error:
            with suppress(StorageError), postgres.connect() as connection:  # the store itself may be what failed
                connection.execute(finish, ("failed", None, None, Jsonb([]), Jsonb({}), describe_error(error), row[0]))
            raise
        status = "skipped" if report.skipped else "succeeded"
        with postgres.connect() as connection:
            connection.execute(
                finish,
                (
                    status,
                    report.rows_in,
                    report.rows_out,
                    Jsonb(list(report.warnings)),
                    Jsonb(dict(report.details) | ({"skipped": report.skipped} if report.skipped else {})),
                    None,
                    row[0],
                ),
            )
    return StepRun(name, status, time.monotonic() - started, report)


def run_steps(
    settings: Settings,
    options: RunOptions,
    names: tuple[str, ...],
    *,
    progress: Progress | None = None,
) -> RunSummary:
    """Run the named steps in order as one recorded run.

    The whole pipeline stops early when ingestion found nothing new and the last complete run left exactly this state.
    """
    from energy_iot.storage.postgres import open_postgres

    progress = progress or Progress()
    whole = names == tuple(step.name for step in STEPS)
    started = time.monotonic()
    done: list[StepRun] = []
    with open_postgres(settings) as postgres:  # held open: the steps inside share the server
        run_id = start_run(settings, options)
        context = RunContext(settings, run_id, options, progress)
        try:
            unchanged = False
            for name in names:
                if unchanged:
                    finished = _record_up_to_date(name, context, postgres)
                else:
                    with progress.step(name, find_step(name).description):
                        finished = run_step(name, context)
                done.append(finished)
                if whole and name == "ingest_data" and finished.report.skipped:
                    unchanged = _is_up_to_date(context, postgres)
        except BaseException as error:
            with suppress(StorageError):
                end_run(settings, run_id, error=error)
            raise
        end_run(settings, run_id, complete=whole)
    return RunSummary(run_id, "succeeded", time.monotonic() - started, tuple(done))


def _record_up_to_date(name: str, context: RunContext, postgres: "Postgres") -> StepRun:
    reason = "up to date"
    with postgres.connect() as connection:
        connection.execute(
            "insert into quality.step_runs (run_id, step, status, ended_at, rows_in, rows_out, details) "
            "values (%s, %s, 'skipped', now() at time zone 'utc', 0, 0, jsonb_build_object('skipped', %s::text))",
            (context.run_id, name, reason),
        )
    return StepRun(name, "skipped", 0.0, StepReport(0, 0, skipped=reason))


def _is_up_to_date(context: RunContext, postgres: "Postgres") -> bool:
    """Whether the derived tables are what the last complete run left, and would come out the same again."""
    from energy_iot.reporting.status import clickhouse_rows

    with postgres.connect() as connection:
        last = connection.execute(
            "select state_fingerprint, ended_at from quality.pipeline_runs where state_fingerprint is not null "
            "order by ended_at desc limit 1"
        ).fetchone()
        if last is None or last[0] != state_fingerprint(context.settings, postgres):
            return False
        disturbed = connection.execute(  # a run failed, was killed, or rebuilt something by itself since then
            "select 1 from quality.step_runs where started_at > %s and status <> 'skipped' and run_id <> %s "
            "and step not in ('check_source', 'ge_validate_staging', 'ge_validate_marts') limit 1",
            (last[1], context.run_id),
        ).fetchone()
        published = connection.execute(
            "select details -> 'tables' from quality.step_runs where step = 'sync_to_clickhouse' "
            "and status = 'succeeded' order by id desc limit 1"
        ).fetchone()
    if disturbed is not None or published is None:
        return False
    return clickhouse_rows(context.settings) == {name: figures["rows"] for name, figures in published[0].items()}


def state_fingerprint(settings: Settings, postgres: "Postgres") -> str:
    """SHA-256 over all that the derived tables follow from: loaded files, model, settings that matter, program, SQL."""
    with postgres.connect() as connection:
        loaded = connection.execute("select sha256 from raw_data.ingested_files order by sha256").fetchall()
        model = connection.execute("select max(model_version) from ml.model_versions").fetchone()
    code = [
        (str(path.relative_to(PROJECT_DIR)), hashlib.sha256(path.read_bytes()).hexdigest())
        for folder in ("dbt/models", "dbt/macros", "great_expectations/expectations")
        for path in sorted((PROJECT_DIR / folder).rglob("*"))
        if path.is_file()
    ]
    relevant = settings.model_dump(mode="json", exclude={"home", "postgres_dsn", "clickhouse_url"})
    text = json.dumps([loaded, model, code, relevant, __version__], default=str)
    return hashlib.sha256(text.encode()).hexdigest()
