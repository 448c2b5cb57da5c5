"""The ordered table of steps, and running them: one, all, or what an interrupted run left."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

from energy_iot import __version__
from energy_iot.errors import EnergyIoTError, StorageError, StoreUnavailableError, UsageError
from energy_iot.ml.config import VERSION_IN_FORCE
from energy_iot.reporting.progress import Progress
from energy_iot.settings import PROJECT_DIR, Settings
from energy_iot.storage.role_names import LOADER, TRANSFORMER

if TYPE_CHECKING:
    import psycopg

    from energy_iot.storage.postgres import Postgres
    from energy_iot.storage.run_lock import RunLock

log = logging.getLogger(__name__)

WITHOUT_EFFECT_ON_RESULTS: Final = {
    "home", "postgres_dsn", "postgres_admin_dsn", "clickhouse_url", "store_attempts", "store_retry_seconds",
    "keep_runs_days", "logging_config", "clickhouse_http_port", "landing_dir", "landing_pattern", "late_hour_utc",
    "airflow_port", "airflow_database_url", "alert_webhook_url", "alert_email_to", "alert_email_from", "alert_smtp_url",
    "metrics_port", "prometheus_port", "alertmanager_port", "grafana_port", "airflow_statsd_port",
    "runbook_url", "monitoring_postgres_dsn", "clickhouse_metrics_address",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One row of the table.

    Attributes:
        name: Its name, also as an Airflow task.
        function: By name, so that importing this module loads nothing heavy.
        command: What runs it alone: `energy-iot` and these words.
        description: One line for people.
        role: The database role it acts in, on servers that have roles.
        updates: What it brings up to date, store.schema.table: its Airflow assets.
    """

    name: str
    function: str
    command: tuple[str, ...]
    description: str
    role: str = TRANSFORMER
    updates: tuple[str, ...] = ()


STEPS: Final[tuple[Step, ...]] = (
    Step(
        "check_source",
        "energy_iot.ingestion.load_data:check_source",
        ("check-source",),
        "Recognise the files: known format, readable, new",
        LOADER,
    ),
    Step(
        "ingest_data",
        "energy_iot.ingestion.load_data:ingest_data",
        ("ingest",),
        "Load new files into raw_data, each whole or not at all",
        LOADER,
        updates=("postgres.raw_data.meter_readings",),
    ),
    Step(
        "dbt_run_staging",
        "energy_iot.transformation.dbt:run_staging",
        ("transform", "staging"),
        "One clean reading for each meter and instant",
        updates=("postgres.staging.stg_meter_readings",),
    ),
    Step(
        "dbt_run_intermediate",
        "energy_iot.transformation.dbt:run_intermediate",
        ("transform", "intermediate"),
        "Hourly, daily, gaps and features",
        updates=(
            "postgres.intermediate.int_readings_hourly",
            "postgres.intermediate.int_readings_daily",
            "postgres.intermediate.int_consumption_features",
            "postgres.intermediate.int_energy_balance",
        ),
    ),
    Step(
        "ge_validate_staging",
        "energy_iot.quality.validation:validate_staging",
        ("validate", "staging"),
        "Judge the feed; a critical failure stops the run",
        updates=("postgres.quality.validation_results",),
    ),
    Step(
        "ml_score",
        "energy_iot.ml.score_anomalies:score",
        ("score",),
        "Score each reading; trains first when no model fits",
        updates=("postgres.ml.reading_scores", "postgres.ml.meter_suspicions"),
    ),
    Step(
        "dbt_run_marts",
        "energy_iot.transformation.dbt:run_marts",
        ("transform", "marts"),
        "Consumption metrics and anomaly scores for analysts",
        updates=(
            "postgres.marts.mart_consumption_metrics",
            "postgres.marts.mart_anomaly_scores",
            "postgres.marts.mart_inspection_list",
            "postgres.marts.mart_losses",
            "postgres.marts.mart_meters",
        ),
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
        updates=(
            "clickhouse.energy_analytics.consumption_metrics",
            "clickhouse.energy_analytics.anomaly_scores",
            "clickhouse.energy_analytics.inspection_list",
            "clickhouse.energy_analytics.losses",
            "clickhouse.energy_analytics.meters",
        ),
    ),
)

# What is recorded like a step, and done only when asked for.
EXTRA_STEPS: Final[tuple[Step, ...]] = (
    Step(
        "forget",
        "energy_iot.ingestion.forget:forget",
        ("forget",),
        "Take files out of raw_data again",
        LOADER,
    ),
    Step(
        "retry_rejects",
        "energy_iot.ingestion.rejects:retry_rejects",
        ("rejects", "retry"),
        "Load corrected rejects",
        LOADER,
    ),
    Step(
        "train",
        "energy_iot.ml.train_anomaly_model:train",
        ("train",),
        "Train a new model version",
        updates=("postgres.ml.model_versions",),
    ),
    Step(
        "compare_models",
        "energy_iot.ml.promotion:compare_models",
        ("compare-models",),
        "Compare the newest model with the one in force on the latest 30 days",
    ),
    Step(
        "promote_model",
        "energy_iot.ml.promotion:promote_model",
        ("promote-model",),
        "Put the newest model into force if the bounds hold, and score everything with it",
        updates=("postgres.ml.reading_scores", "postgres.ml.meter_suspicions"),
    ),
)
ALL_STEPS: Final = tuple(step.name for step in STEPS)
REBUILD_STEPS: Final = ALL_STEPS[ALL_STEPS.index("dbt_run_staging") :]
PUBLISHING_STEPS: Final = ALL_STEPS[ALL_STEPS.index("dbt_run_marts") :]
MODEL_STEPS: Final = ("train", "compare_models", "promote_model", *PUBLISHING_STEPS)


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
    """What was asked of a run; kept with it, so that a step in another process sees the same.

    Attributes:
        files: Files or folders to load.
        pattern: Which files of the folders, such as readings_*.csv.gz.
        source: Source mapping, by name or file; None to recognise it.
        full_refresh: Build everything derived whole, not only what changed.
        rescore: What to score again with the newest model: "all", or days as FIRST..LAST; None for what changed.
        forget_file: File to take out, by its name or the beginning of its hash.
        forget_run: Run whose files are to be taken out.
        corrected_rejects: Exported rejects whose lines were corrected; None to try them as they are.
        wait_seconds: How long to wait for another run on the same database to end.
        before: Leave files for a later run that hold readings of this instant (UTC) or after it; None takes all.
    """

    files: tuple[Path, ...] = ()
    pattern: str = "*"
    source: str | None = None
    full_refresh: bool = False
    rescore: str | None = None
    forget_file: str | None = None
    forget_run: str | None = None
    corrected_rejects: Path | None = None
    wait_seconds: float = 0
    before: datetime | None = None

    def to_json(self) -> str:
        """JSON text with absolute paths; what was not asked for is left out."""
        asked = {name: value for name, value in asdict(self).items() if value != getattr(RunOptions(), name)}
        files = [os.fsencode(file.absolute()).decode("utf-8", errors="backslashreplace") for file in self.files]
        return json.dumps(asked | {"files": files}, default=str)

    @classmethod
    def from_json(cls, asked: Mapping[str, Any]) -> "RunOptions":
        """The options that `to_json` wrote, read back."""
        found = dict(asked) | {"files": tuple(map(Path, asked["files"]))}
        if "corrected_rejects" in found:
            found["corrected_rejects"] = Path(found["corrected_rejects"])
        if "before" in found:
            found["before"] = datetime.fromisoformat(found["before"])
        return cls(**found)


@dataclass(frozen=True)
class RunContext:
    """What every step receives; `lock` keeps other writers out, None where the caller sees to that."""

    settings: Settings
    run_id: str
    options: RunOptions = RunOptions()
    progress: Progress = field(default_factory=Progress)
    lock: "RunLock | None" = None


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
    """The row of `STEPS` or `EXTRA_STEPS` called `name`.

    Raises:
        UsageError: There is none.
    """
    for step in STEPS + EXTRA_STEPS:
        if step.name == name:
            return step
    raise UsageError(f"no step '{name}'", fix=f"choose one of: {', '.join(ALL_STEPS)}")


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
                _status_of(error),
                describe_error(error) if error else None,
                state_fingerprint(settings, postgres) if complete and not error else None,
                run_id,
            ),
        )
        if complete:
            connection.execute(
                f"update quality.pipeline_runs set model_version = ({VERSION_IN_FORCE}) where run_id = %s",
                (run_id,),
            )


def _status_of(error: BaseException | None) -> str:
    if error is None:
        return "succeeded"
    return "failed" if isinstance(error, Exception) else "interrupted"  # Ctrl-C and SIGTERM are no Exceptions


def describe_error(error: BaseException) -> str:
    """One text for the tables of runs: our errors as they are, others with their type."""
    if isinstance(error, EnergyIoTError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted (Ctrl-C)"
    if isinstance(error, SystemExit):
        return "interrupted (ended by the system or an operator)"
    return f"{type(error).__name__}: {error}".strip().removesuffix(":")


def run_step(name: str, context: RunContext) -> StepRun:
    """Run one step and record it in quality.step_runs; an error is recorded, then raised as it was.

    When a store goes away, the step is tried again: each does its work in transactions, so a half of it is none.
    """
    from energy_iot.logs import bind_step, failure

    step, row, started = find_step(name), _StepRow(context, name), time.monotonic()
    with bind_step(name):
        try:
            report = _run_with_retries(step, context, row)
        except BaseException as error:
            with suppress(StorageError):  # the store itself may be what failed
                row.end(_status_of(error), error=error)
            log.error("step %s", _status_of(error), **failure(error, **_seconds_since(started)))
            raise
        status = "skipped" if report.skipped else "succeeded"
        row.end(status, report)
        figures = {
            "rows_in": report.rows_in,
            "rows_out": report.rows_out,
            "mode": report.details.get("mode"),
            "warnings": list(report.warnings),
        }
        log.info(
            "step %s%s", status, f": {report.skipped}" * bool(report.skipped), extra=_seconds_since(started) | figures
        )
    return StepRun(name, status, time.monotonic() - started, report)


def _seconds_since(started: float) -> dict[str, Any]:
    return {"seconds": round(time.monotonic() - started, 3)}


def _run_with_retries(step: Step, context: RunContext, row: "_StepRow") -> StepReport:
    from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

    from energy_iot.storage.postgres import settings_for_role

    def attempt() -> StepReport:
        if context.lock:
            context.lock.ensure_held()  # it went with the server, if that did
        row.begin()
        acting = replace(context, settings=settings_for_role(context.settings, step.role))
        # looked up now: the step's libraries load when it runs, not for --help
        return cast("StepFunction", resolve_name(step.function))(acting)

    def tell(state: RetryCallState) -> None:
        assert state.outcome is not None
        assert state.next_action is not None
        problem = str(cast("EnergyIoTError", state.outcome.exception()).problem).splitlines()[0]
        pause = state.next_action.sleep
        log.warning(
            "%s: %s; trying again in %.0f s", step.name, problem, pause, extra={"attempt": state.attempt_number}
        )

    retrying = Retrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        stop=stop_after_attempt(context.settings.store_attempts),
        wait=wait_exponential(multiplier=context.settings.store_retry_seconds, max=60),
        before_sleep=tell,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except StoreUnavailableError as error:
        tried = f", tried {row.attempts} times" if row.attempts > 1 else ""
        raise type(error)(f"{step.name}{tried}: {error.problem}", fix=error.fix) from error


@dataclass
class _StepRow:
    """A step's row in quality.step_runs, over all its attempts."""

    context: RunContext
    step: str
    attempts: int = 0
    _id: int | None = None

    def begin(self) -> None:
        """Record that an attempt starts."""
        from energy_iot.storage.postgres import open_postgres

        self.attempts += 1
        with open_postgres(self.context.settings) as postgres, postgres.connect() as connection:
            if self._id is not None:
                connection.execute(
                    "update quality.step_runs set attempts = %s where id = %s", (self.attempts, self._id)
                )
                return
            row = connection.execute(
                "insert into quality.step_runs (run_id, step, status, attempts) values (%s, %s, 'running', %s) "
                "returning id",
                (self.context.run_id, self.step, self.attempts),
            ).fetchone()
        assert row is not None
        self._id = row[0]

    def end(self, status: str, report: StepReport | None = None, *, error: BaseException | None = None) -> None:
        """Record how it ended."""
        from psycopg.types.json import Jsonb

        from energy_iot.storage.postgres import open_postgres

        details = dict(report.details) | ({"skipped": report.skipped} if report.skipped else {}) if report else {}
        with open_postgres(self.context.settings) as postgres, postgres.connect() as connection:
            connection.execute(
                "update quality.step_runs set status = %s, ended_at = now() at time zone 'utc', rows_in = %s, "
                "rows_out = %s, warnings = %s, details = %s, error = %s where id = %s",
                (
                    status,
                    report.rows_in if report else None,
                    report.rows_out if report else None,
                    Jsonb(list(report.warnings) if report else []),
                    Jsonb(details),
                    describe_error(error) if error else None,
                    self._id,
                ),
            )


def run_steps(
    settings: Settings,
    options: RunOptions,
    names: tuple[str, ...],
    *,
    progress: Progress | None = None,
) -> RunSummary:
    """Run the named steps in order as one recorded run, alone on its database.

    The whole pipeline stops early when nothing is new and the last complete run left exactly this state.

    Raises:
        HomeInUseError: Another run holds the database, and did not end within `options.wait_seconds`.
    """
    progress = progress or Progress()
    whole = names == ALL_STEPS
    started = time.monotonic()
    done: list[StepRun] = []
    with _recorded_run(settings, options, names, progress) as (context, postgres):
        unchanged = False
        for name in names:
            if unchanged:
                finished = _record_up_to_date(name, context, postgres)
            else:
                try:
                    with progress.step(name, find_step(name).description):
                        finished = run_step(name, context)
                except (KeyboardInterrupt, SystemExit):
                    _tell_interrupted(progress, names, name)
                    raise
            done.append(finished)
            if whole and name == "ingest_data" and finished.report.skipped:
                unchanged = _is_up_to_date(context, postgres)
        end_run(context.settings, context.run_id, complete=whole)
    return RunSummary(context.run_id, "succeeded", time.monotonic() - started, tuple(done))


def run_step_of(settings: Settings, run_id: str, name: str, *, progress: Progress | None = None) -> StepRun:
    """Run one step of a run that `start_run` recorded, in a process of its own: what an orchestrator's task does.

    The step holds the database's lock, no longer: another run may come between two steps, and each step finds out for
    itself what it has to follow. `end_run` records the end.

    Raises:
        UsageError: There is no such run.
        HomeInUseError: Another run holds the database, and did not end within the run's `wait_seconds`.
    """
    from energy_iot.logs import bind_run
    from energy_iot.storage.postgres import open_postgres, settings_for_role
    from energy_iot.storage.run_lock import hold_run_lock

    with open_postgres(settings_for_role(settings, find_step(name).role)) as postgres:
        options = _read_options(postgres, run_id)
        with hold_run_lock(postgres, run=f"{name} of {run_id}", wait_seconds=options.wait_seconds) as lock:
            with postgres.connect() as connection:
                _close_dead_runs(connection, but=run_id)
                connection.execute(  # a run in between may have taken it for dead, and a retry goes on after an error
                    "update quality.pipeline_runs set status = 'running', ended_at = null, error = null "
                    "where run_id = %s",
                    (run_id,),
                )
            with bind_run(run_id):
                return run_step(name, RunContext(settings, run_id, options, progress or Progress(), lock))


def nothing_to_do(settings: Settings, run_id: str) -> bool:
    """Whether a run that has no new file would leave everything as the last complete run left it.

    Where nothing was ever loaded, there is nothing to do either.
    """
    from energy_iot.storage.changes import latest_change
    from energy_iot.storage.postgres import open_postgres

    with open_postgres(settings) as postgres:
        with postgres.connect() as connection:
            if not latest_change(connection):
                return True
        return _is_up_to_date(RunContext(settings, run_id, _read_options(postgres, run_id)), postgres)


def is_complete(settings: Settings, run_id: str) -> bool:
    """Whether the run did all steps, and no other run did anything between them that may not be published yet."""
    from energy_iot.storage.postgres import open_postgres

    with open_postgres(settings) as postgres, postgres.connect() as connection:
        row = connection.execute(
            "with own as (select min(id) as first_id, array_agg(step) as steps from quality.step_runs "
            "where run_id = %(run)s and status <> 'failed') "
            "select own.steps @> %(all)s and not exists (select from quality.step_runs as other "
            "where other.run_id <> %(run)s and other.status <> 'skipped' and other.id > own.first_id) from own",
            {"run": run_id, "all": list(ALL_STEPS)},
        ).fetchone()
    return bool(row and row[0])


def _read_options(postgres: "Postgres", run_id: str) -> RunOptions:
    with postgres.connect() as connection:
        row = connection.execute("select options from quality.pipeline_runs where run_id = %s", (run_id,)).fetchone()
    if row is None:
        raise UsageError(f"no run '{run_id}' is recorded here", fix="energy-iot status --last 20 lists the last ones")
    return RunOptions.from_json(row[0])


@contextmanager
def _recorded_run(
    settings: Settings, options: RunOptions, names: tuple[str, ...], progress: Progress
) -> Iterator[tuple[RunContext, "Postgres"]]:
    """Hold the database's lock and a row in quality.pipeline_runs; an error is recorded, and raised as it was."""
    from energy_iot.logs import bind_run, failure
    from energy_iot.retention import remove_old_records
    from energy_iot.storage.changes import latest_change
    from energy_iot.storage.postgres import open_postgres, settings_for_role
    from energy_iot.storage.run_lock import hold_run_lock

    roles = {find_step(name).role for name in names}
    # records of a run over several roles are kept by the user itself, who is in all of them
    acting = settings_for_role(settings, roles.pop()) if len(roles) == 1 else settings
    command = "run" if names == ALL_STEPS else ", ".join(names)
    with (
        open_postgres(acting) as postgres,  # held open: the steps inside share the server
        hold_run_lock(postgres, run=command, wait_seconds=options.wait_seconds) as lock,
    ):
        with postgres.connect() as connection:
            _close_dead_runs(connection)
            if names == ALL_STEPS and not options.files and not latest_change(connection):
                raise UsageError("nothing was loaded here yet, so nothing is left to do", fix="energy-iot run FILE...")
        run_id = start_run(acting, options)
        with bind_run(run_id):
            asked = {"options": json.loads(options.to_json()), "package_version": __version__}
            log.info("run started: %s", command, extra=asked)
            try:
                yield RunContext(settings, run_id, options, progress, lock), postgres
            except BaseException as error:
                log.error("run %s", _status_of(error), **failure(error))
                with suppress(StorageError):
                    end_run(acting, run_id, error=error)
                raise
            log.info("run succeeded")
            remove_old_records(acting)


def _close_dead_runs(connection: "psycopg.Connection", *, but: str | None = None) -> None:
    """Give runs that ended without a word their end: whoever holds the lock is alone, so none of them runs.

    The run `but` goes on, in other processes one after the other; its steps do not.
    """
    for table in ("quality.pipeline_runs", "quality.step_runs"):
        connection.execute(
            f"update {table} set status = 'interrupted', ended_at = now() at time zone 'utc', "
            "error = 'its process ended without a word (killed, or the machine went down)' "
            "where status = 'running' and (run_id <> %s or %s)",
            (but or "", table == "quality.step_runs"),
        )


def _tell_interrupted(progress: Progress, names: tuple[str, ...], at: str) -> None:
    place = names.index(at)
    progress.note(f"interrupted in {at}, which is as before it began; done: {', '.join(names[:place]) or 'nothing'}")
    progress.note(f"left: {', '.join(names[place:])}")


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

    if context.options.full_refresh or context.options.rescore:
        return False
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
        model = connection.execute(VERSION_IN_FORCE).fetchone()
    code = [
        (str(path.relative_to(PROJECT_DIR)), hashlib.sha256(path.read_bytes()).hexdigest())
        for folder in ("dbt/models", "dbt/macros", "great_expectations/expectations")
        for path in sorted((PROJECT_DIR / folder).rglob("*"))
        if path.is_file()
    ]
    relevant = settings.model_dump(mode="json", exclude=WITHOUT_EFFECT_ON_RESULTS)
    text = json.dumps([loaded, model, code, relevant, __version__], default=str)
    return hashlib.sha256(text.encode()).hexdigest()
