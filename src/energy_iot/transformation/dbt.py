"""The only place that starts dbt: in this process, on the database of the settings, writing under the home folder.

The models follow the log of changes (storage/changes.py) by themselves: dbt/macros/incremental.sql finds what to make
anew, and keeps each model's state. Here is decided whether dbt has to be started at all, and with which fingerprints.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import click
import psycopg

from energy_iot.errors import EnergyIoTError, StorageError, TransformationError, UsageError
from energy_iot.ml.config import SCORES_STATE, SUSPICIONS_STATE, VERSION_IN_FORCE
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.settings import PROJECT_DIR, Settings
from energy_iot.storage.changes import CHANGED_DAYS_TABLE, changed_days_query, find_pending, fingerprint_of, read_state
from energy_iot.storage.postgres import Postgres, open_postgres
from energy_iot.storage.postgres_errors import storage_error
from energy_iot.transformation.latest_day import read_latest_day

if TYPE_CHECKING:
    from dbt_common.events.base_types import EventMsg

DBT_PROJECT_DIR: Final = PROJECT_DIR / "dbt"
READINGS_MODEL: Final = "stg_meter_readings"
SCORES_MART: Final = "mart_anomaly_scores"
SHOWN_FAILURES: Final = 5
FAILED: Final = frozenset({"error", "fail", "runtime error"})
# What a model's SQL names.
VARIABLE: Final = re.compile(r"\bvar\('(\w+)'\)")
REFERENCE: Final = re.compile(r"\bref\('(\w+)'\)")
SCORES_SOURCE: Final = re.compile(r"\bsource\('ml', ")
SUSPICIONS_SOURCE: Final = re.compile(r"\bsource\('ml', 'meter_suspicions'")

_dbt_lock = Lock()  # dbt keeps its flags, and reads its connection, in globals of the process


@dataclass(frozen=True)
class NodeRun:
    """A model or a test that dbt ran.

    Attributes:
        name: Its name.
        kind: model, test, unit_test ...
        status: success, pass, warn, skipped, no-op, error or fail.
        seconds: How long it took.
        rows: Rows a model wrote, None for all else.
        failures: Rows that fail a test, None for all else.
        file: Where it is defined, below the dbt folder.
        message: What dbt or the database said, without colours.
        compiled: Where dbt wrote the SQL that it ran, if it came that far.
        figures: What a model told of the rows it read.
    """

    name: str
    kind: str
    status: str
    seconds: float
    rows: int | None
    failures: int | None
    file: str
    message: str
    compiled: Path | None
    figures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerBuild:
    """What building a layer took.

    Attributes:
        since: The last change that all models of it knew; None when one of them was built whole.
        changed_days: Days of meters that changed after it.
        models: What ran.
    """

    since: int | None
    changed_days: int
    models: tuple[NodeRun, ...]

    @property
    def rows_out(self) -> int:
        """Rows that were written."""
        return sum(model.rows or 0 for model in self.models)

    @property
    def details(self) -> dict[str, Any]:
        """What every layer tells in its report."""
        mode = "whole" if self.since is None else "incremental"
        return {"mode": mode, "models": {model.name: _model_details(model) for model in self.models}} | (
            {} if self.since is None else {"changed_days": self.changed_days}
        )

    def figure(self, name: str) -> int:
        """A figure that the models told, of all that told it."""
        return sum(model.figures.get(name, 0) for model in self.models)


def run_staging(context: RunContext) -> StepReport:
    """Bring the tables of staging up to raw_data; `details` tells of the readings of customers.

    Raises:
        TransformationError: A model failed.
        StorageError: The database cannot be reached, or went away.
    """
    build = _build_layer(context, "staging")
    if build is None:
        return _UP_TO_DATE
    received, with_consumption = build.figure("received"), build.figure("with_consumption")
    staged = sum(model.rows or 0 for model in build.models if model.name == READINGS_MODEL)
    return StepReport(
        rows_in=received,
        rows_out=build.rows_out,
        details=build.details
        | {
            "without_consumption": received - with_consumption,
            "replaced_by_later": with_consumption - staged,
        },
    )


def run_intermediate(context: RunContext) -> StepReport:
    """Bring the tables of intermediate up to staging; `details` tells of their gaps and of the newest day.

    Gaps are those that end on changed days.

    Raises:
        TransformationError: A model failed.
        StorageError: The database cannot be reached, or went away.
    """
    build = _build_layer(context, "intermediate")
    if build is None:
        return _UP_TO_DATE
    gaps = "select count(*), coalesce(sum(missing_readings), 0) from intermediate.int_reading_gaps"
    if build.since is not None:
        gaps += f" where (meter_id, cast(gap_end as date)) in ({changed_days_query(build.since)})"
    with open_postgres(context.settings) as postgres, postgres.connect() as connection:
        found, missing = connection.execute(gaps.encode()).fetchone() or (0, 0)
        latest_day = read_latest_day(connection)
    return StepReport(
        rows_in=build.figure("readings_read"),
        rows_out=build.rows_out,
        details=build.details | {"gaps": int(found), "missing_readings": int(missing), "latest_day": latest_day},
    )


def run_marts(context: RunContext) -> StepReport:
    """Bring the tables of marts up to intermediate and the scores.

    Raises:
        TransformationError: A model failed.
        StorageError: The database cannot be reached, or went away.
    """
    build = _build_layer(context, "marts")
    if build is None:
        return _UP_TO_DATE
    scores = sum(model.rows or 0 for model in build.models if model.name == SCORES_MART)  # one row for each
    return StepReport(
        rows_in=build.figure("days_read") + scores,
        rows_out=build.rows_out,
        details=build.details,
    )


_UP_TO_DATE: Final = StepReport(0, 0, skipped="up to date")


def build_fingerprints(settings: Settings, connection: psycopg.Connection) -> dict[str, str]:
    """For each model, a hash of all but rows of raw_data that its table follows from.

    That is its SQL, the macros, the settings that its SQL names, the scores where it shows them, and all of that of the
    models that it reads. So no model is built whole for what does not concern it.
    """
    version = connection.execute(VERSION_IN_FORCE).fetchone()
    scores, suspicions = read_state(connection, SCORES_STATE), read_state(connection, SUSPICIONS_STATE)
    macros, models = _sql_of("macros"), _sql_of("models")
    found: dict[str, str] = {}

    def fingerprint(name: str) -> str:
        if name not in found:
            text = models[name]
            found[name] = fingerprint_of(
                macros,
                text,
                _named_settings(settings, text),
                (version, scores and scores.fingerprint) if SCORES_SOURCE.search(text) else None,
                (suspicions and suspicions.fingerprint) if SUSPICIONS_SOURCE.search(text) else None,
                # a model that is not there is for dbt to tell
                [fingerprint(read) for read in sorted(set(REFERENCE.findall(text)) & set(models))],
            )
        return found[name]

    return {name: fingerprint(name) for name in models}


def model_variables(settings: Settings) -> dict[str, Any]:
    """The settings that models name as variables; others have their value in dbt_project.yml."""
    return _named_settings(settings, "".join(_sql_of("models").values()))


def _named_settings(settings: Settings, text: str) -> dict[str, Any]:
    names = sorted(set(VARIABLE.findall(text)) & set(Settings.model_fields))
    return {name: getattr(settings, name) for name in names}


def _sql_of(folder: str) -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted((DBT_PROJECT_DIR / folder).rglob("*.sql"))}


def run_dbt(
    settings: Settings,
    arguments: Sequence[str],
    *,
    echo: bool = False,
    on_model_end: Callable[[], None] = lambda: None,
) -> tuple[NodeRun, ...]:
    """Run a dbt command, such as `["build", "--select", "marts"]`, and wait for its end.

    Nothing is written into the project: manifest, logs and compiled SQL go to the folder dbt under the home folder.

    Args:
        settings: Where the database is, and the variables of the models.
        arguments: What one would type after `dbt`.
        echo: Let dbt print what it prints; else it only logs.
        on_model_end: Called each time that a model has been built.

    Returns:
        What ran, in order of completion; empty for commands that run no nodes, such as `docs generate`.

    Raises:
        UsageError: dbt does not know the command or an option.
        TransformationError: The project does not compile, a model failed or a test found rows.
        StorageError: The database cannot be reached, or went away.
    """
    from dbt.cli.main import dbtRunner

    if not arguments:
        raise UsageError("no dbt command given", fix="name one, for example: energy-iot dbt build")
    state_dir = settings.home / "dbt"
    state_dir.mkdir(parents=True, exist_ok=True)
    options = {
        "--project-dir": str(DBT_PROJECT_DIR),
        "--profiles-dir": str(DBT_PROJECT_DIR),
        "--target-path": str(state_dir),
        "--log-path": str(state_dir),
        "--log-level": "info" if echo else "none",
        "--vars": json.dumps(model_variables(settings)),
    }
    accepted = _options_of(arguments)
    command = [*arguments, *(part for pair in options.items() if pair[0] in accepted for part in pair)]
    if "--use-colors" in accepted and not sys.stdout.isatty():
        command.append("--no-use-colors")
    figures: dict[str, dict[str, int]] = {}

    def on_event(event: "EventMsg") -> None:
        if event.info.name == "LogModelResult":
            on_model_end()
        elif event.info.name == "JinjaLogDebug" and event.data.msg.startswith('{"figures"'):  # macro tell_rows_read
            figures[event.data.node_info.node_name] = json.loads(event.data.msg)["figures"]

    with open_postgres(settings) as postgres:
        with _dbt_lock, _environment(_environment_variables(settings, postgres)):
            done = dbtRunner(callbacks=[on_event]).invoke(command)
        if isinstance(done.exception, KeyboardInterrupt | SystemExit):
            raise done.exception
        results = getattr(done.result, "results", ())
        nodes = tuple(_node_run(result, state_dir, figures) for result in results)
        if not done.success:
            raise _failure(arguments, nodes, done.exception, state_dir, postgres)
    return nodes


def _build_layer(context: RunContext, layer: str) -> LayerBuild | None:
    """Have dbt bring a layer up to date; None if it is."""
    models = [path.stem for path in sorted((DBT_PROJECT_DIR / "models" / layer).glob("*.sql"))]
    with open_postgres(context.settings) as postgres:
        with postgres.connect() as connection:
            fingerprints = build_fingerprints(context.settings, connection)
            pending = [
                find_pending(
                    connection,
                    model,
                    fingerprints[model],
                    full_refresh=context.options.full_refresh or not _exists(connection, layer, model),
                )
                for model in models
            ]
            if all(model.nothing for model in pending):
                return None
            known = [model.since for model in pending if model.since is not None]
            since = min(known) if len(known) == len(models) else None
            changed_days = 0 if since is None else _count_changed_days(connection, since)
        # dbt's artifacts as JSON take longer to write than everything else it does itself; docs and build write them
        command = ["run", "--select", layer, "--no-write-json"]
        if context.options.full_refresh:
            command.append("--full-refresh")
        with context.progress.task(f"building {layer}", len(models), "models") as advance:
            nodes = run_dbt(context.settings, command, on_model_end=lambda: advance(1))
    return LayerBuild(since, changed_days, nodes)


def _exists(connection: psycopg.Connection, layer: str, model: str) -> bool:
    row = connection.execute("select to_regclass(%s) is not null", (f"{layer}.{model}",)).fetchone()
    return row is not None and bool(row[0])


def _count_changed_days(connection: psycopg.Connection, since: int) -> int:
    row = connection.execute(
        f"select count(distinct (meter_id, reading_date)) from {CHANGED_DAYS_TABLE} where change_id > %s".encode(),
        (since,),
    ).fetchone()
    return int(row[0]) if row else 0


def _model_details(model: NodeRun) -> dict[str, Any]:
    return {"seconds": round(model.seconds, 2), "rows": model.rows}


# --- dbt's surroundings ---------------------------------------------------------------------------------------------


def _options_of(arguments: Sequence[str]) -> set[str]:
    """The options that the named command takes: not all take all of ours."""
    from dbt.cli.main import cli

    command: click.Command = cli
    for argument in arguments:
        if isinstance(command, click.Group) and argument in command.commands:
            command = command.commands[argument]
    return {option for parameter in command.params for option in parameter.opts}


def _environment_variables(settings: Settings, postgres: Postgres) -> dict[str, str]:
    """What the dbt project asks the environment for; also proves that the database can be reached."""
    with postgres.connect() as connection:
        info = connection.info  # what libpq settled on, with its own variables and password file
        used = info.get_parameters()
        role = (connection.execute("show role").fetchone() or ("none",))[0]
        return {
            "DBT_POSTGRES_HOST": info.host,
            "DBT_POSTGRES_PORT": str(info.port),
            "DBT_POSTGRES_USER": info.user,
            "DBT_ENV_SECRET_POSTGRES_PASSWORD": info.password,
            "DBT_POSTGRES_DATABASE": info.dbname,
            "DBT_POSTGRES_ROLE": "" if role == "none" else role,
            "DBT_POSTGRES_SSLMODE": used.get("sslmode", "prefer"),
            "DBT_POSTGRES_SSLROOTCERT": used.get("sslrootcert", ""),
            "DBT_POSTGRES_SSLCERT": used.get("sslcert", ""),
            "DBT_POSTGRES_SSLKEY": used.get("sslkey", ""),
            "DBT_BUILD_FINGERPRINTS": json.dumps(build_fingerprints(settings, connection)),
        }


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have `variables` in os.environ, where dbt looks, while the block runs; then what was there before."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# --- dbt's results and failures -------------------------------------------------------------------------------------


def _node_run(result: Any, state_dir: Path, figures: Mapping[str, Mapping[str, int]]) -> NodeRun:
    node = result.node
    compiled = getattr(node, "compiled_path", None)
    is_model = node.resource_type == "model"
    return NodeRun(
        name=node.name,
        kind=str(node.resource_type),
        status=str(result.status),
        seconds=float(result.execution_time),
        rows=result.adapter_response.get("rows_affected") if is_model else None,
        failures=None if is_model else result.failures,
        file=node.original_file_path,
        message=_plain(result.message or ""),
        compiled=state_dir.joinpath(compiled) if compiled else None,
        figures=figures.get(node.name, {}),
    )


def _failure(
    arguments: Sequence[str],
    nodes: tuple[NodeRun, ...],
    exception: BaseException | None,
    state_dir: Path,
    postgres: Postgres,
) -> EnergyIoTError:
    """The error that tells what went wrong: the database, the command, the project, a model or a test."""
    from dbt.cli.exceptions import DbtUsageException

    log = state_dir / "dbt.log"
    failed = [node for node in nodes if node.status in FAILED]
    said = [_reason(node) for node in failed] + ([_lines(str(exception))] if exception else [])
    try:
        with postgres.connect():
            pass
    except StorageError as unreachable:
        return unreachable
    password = postgres.parameters.get("password")
    for text in said:
        told = storage_error(text, None, operational=False, place=postgres.place, password=password)
        if told is not None:
            return told
    if isinstance(exception, DbtUsageException):
        return UsageError(f"dbt {' '.join(arguments)}: {exception}", fix="energy-iot dbt --help lists the commands")
    if not failed:
        return TransformationError(
            f"dbt {arguments[0]} failed before it ran anything:\n  {''.join(said) or 'it gave no reason'}",
            fix=f"correct the file that is named, below {DBT_PROJECT_DIR}; the whole story is in {log}",
        )
    skipped = sum(node.status == "skipped" for node in nodes)
    shown = [f"{node.kind} {node.name} (dbt/{node.file}): {_reason(node)}" for node in failed[:SHOWN_FAILURES]]
    if len(failed) > SHOWN_FAILURES:
        shown.append(f"... and {len(failed) - SHOWN_FAILURES} more")
    seen = next((f"the SQL that ran is {node.compiled}; " for node in failed if node.compiled), "")
    return TransformationError(
        f"dbt {arguments[0]}: {len(failed)} of {len(nodes)} failed"
        + (f", {skipped} that depend on them were skipped" if skipped else "")
        + ":\n  "
        + "\n  ".join(shown),
        fix=f"{seen}correct the model, or the data it reads, and run the command again; dbt's log is {log}",
    )


def _reason(node: NodeRun) -> str:
    """The database's message without dbt's frame around it, on indented lines."""
    frame = re.compile(r"^(Database|Compilation|Runtime) Error in .*\n|^\s*compiled code at .*$", re.MULTILINE)
    return _lines(frame.sub("", node.message)) or node.status


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _lines(text: str) -> str:
    return "\n    ".join(line.rstrip() for line in _plain(text).strip().splitlines() if line.strip())
