"""The only place that starts dbt: in this process, on the database of the settings, writing under the home folder."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final

import click
from dbt.cli.exceptions import DbtUsageException
from dbt.cli.main import cli, dbtRunner
from dbt_common.events.base_types import EventMsg

from energy_iot.errors import EnergyIoTError, StorageError, TransformationError, UsageError
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.settings import PROJECT_DIR, Settings
from energy_iot.storage.postgres import Postgres, open_postgres

DBT_PROJECT_DIR: Final = PROJECT_DIR / "dbt"
SHOWN_FAILURES: Final = 5
FAILED: Final = frozenset({"error", "fail", "runtime error"})

# What a server or its connection says when it goes away under a running statement.
CONNECTION_LOST: Final = re.compile(
    r"server closed the connection|terminating connection|could not connect|connection to server .* failed"
    r"|the database system is (shutting down|starting up|in recovery)|SSL connection has been closed",
    re.IGNORECASE,
)
OUT_OF_SPACE: Final = re.compile(r"no space left on device|disk full|could not (extend|write to) file", re.IGNORECASE)

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


def run_staging(context: RunContext) -> StepReport:
    """Build staging.stg_meter_readings from raw_data.

    Raises:
        TransformationError: A model failed.
        StorageError: The database cannot be reached, or went away.
    """
    models = _build_layer(context, "staging")
    received, with_consumption = _counts(
        context.settings, "select count(*), count(electricity_consumed) from raw_data.meter_readings"
    )
    staged = _rows(models)
    return StepReport(
        rows_in=received,
        rows_out=staged,
        details=_details(models)
        | {"without_consumption": received - with_consumption, "replaced_by_later": with_consumption - staged},
    )


def run_intermediate(context: RunContext) -> StepReport:
    """Build the tables of intermediate from staging; `details` tells of the gaps.

    Raises:
        TransformationError: A model failed.
        StorageError: The database cannot be reached, or went away.
    """
    models = _build_layer(context, "intermediate")
    staged, gaps, missing = _counts(
        context.settings,
        "select (select count(*) from staging.stg_meter_readings), count(*), coalesce(sum(missing_readings), 0) "
        "from intermediate.int_reading_gaps",
    )
    return StepReport(
        rows_in=staged,
        rows_out=_rows(models),
        details=_details(models) | {"gaps": gaps, "missing_readings": missing},
    )


def run_marts(context: RunContext) -> StepReport:
    """Build the tables of marts from intermediate and the scores.

    Raises:
        TransformationError: A model failed.
        StorageError: The database cannot be reached, or went away.
    """
    models = _build_layer(context, "marts")
    (read,) = _counts(
        context.settings,
        "select (select count(*) from intermediate.int_readings_daily) + (select count(*) from ml.reading_scores)",
    )
    return StepReport(rows_in=read, rows_out=_rows(models), details=_details(models))


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
    if not arguments:
        raise UsageError("no dbt command given", fix="name one, for example: energy-iot dbt build")
    state_dir = settings.home / "dbt"
    state_dir.mkdir(parents=True, exist_ok=True)
    variables = {"history_days": settings.history_days, "anomaly_type_z": settings.anomaly_type_z}
    options = {
        "--project-dir": str(DBT_PROJECT_DIR),
        "--profiles-dir": str(DBT_PROJECT_DIR),
        "--target-path": str(state_dir),
        "--log-path": str(state_dir),
        "--log-level": "info" if echo else "none",
        "--vars": json.dumps(variables),
    }
    accepted = _options_of(arguments)
    command = [*arguments, *(part for pair in options.items() if pair[0] in accepted for part in pair)]
    if "--use-colors" in accepted and not sys.stdout.isatty():
        command.append("--no-use-colors")

    def on_event(event: EventMsg) -> None:
        if event.info.name == "LogModelResult":
            on_model_end()

    with open_postgres(settings) as postgres:
        with _dbt_lock, _environment(_connection_variables(postgres)):
            done = dbtRunner(callbacks=[on_event]).invoke(command)
        if isinstance(done.exception, KeyboardInterrupt | SystemExit):
            raise done.exception
        nodes = tuple(_node_run(result, state_dir) for result in getattr(done.result, "results", ()))
        if not done.success:
            raise _failure(arguments, nodes, done.exception, state_dir, postgres)
    return nodes


def _build_layer(context: RunContext, layer: str) -> tuple[NodeRun, ...]:
    models = len(list((DBT_PROJECT_DIR / "models" / layer).glob("*.sql")))
    # dbt's artifacts as JSON take longer to write than everything else it does itself; docs and build write them
    command = ["run", "--select", layer, "--no-write-json"]
    with context.progress.task(f"building {layer}", models, "models") as advance:
        return run_dbt(context.settings, command, on_model_end=lambda: advance(1))


def _details(models: tuple[NodeRun, ...]) -> dict[str, Any]:
    return {"models": {model.name: {"seconds": round(model.seconds, 2), "rows": model.rows} for model in models}}


def _rows(models: tuple[NodeRun, ...]) -> int:
    return sum(model.rows or 0 for model in models)


def _counts(settings: Settings, query: str) -> tuple[int, ...]:
    with open_postgres(settings) as postgres, postgres.connect() as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return tuple(int(count) for count in row)


# --- dbt's surroundings ---------------------------------------------------------------------------------------------


def _options_of(arguments: Sequence[str]) -> set[str]:
    """The options that the named command takes: not all take all of ours."""
    command: click.Command = cli
    for argument in arguments:
        if isinstance(command, click.Group) and argument in command.commands:
            command = command.commands[argument]
    return {option for parameter in command.params for option in parameter.opts}


def _connection_variables(postgres: Postgres) -> dict[str, str]:
    """What dbt/profiles.yml asks the environment for; also proves that the database can be reached."""
    with postgres.connect() as connection:
        info = connection.info  # what libpq settled on, with its own variables and password file
        used = info.get_parameters()
        return {
            "DBT_POSTGRES_HOST": info.host,
            "DBT_POSTGRES_PORT": str(info.port),
            "DBT_POSTGRES_USER": info.user,
            "DBT_ENV_SECRET_POSTGRES_PASSWORD": info.password,
            "DBT_POSTGRES_DATABASE": info.dbname,
            "DBT_POSTGRES_SSLMODE": used.get("sslmode", "prefer"),
            "DBT_POSTGRES_SSLROOTCERT": used.get("sslrootcert", ""),
            "DBT_POSTGRES_SSLCERT": used.get("sslcert", ""),
            "DBT_POSTGRES_SSLKEY": used.get("sslkey", ""),
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


def _node_run(result: Any, state_dir: Path) -> NodeRun:
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
    )


def _failure(
    arguments: Sequence[str],
    nodes: tuple[NodeRun, ...],
    exception: BaseException | None,
    state_dir: Path,
    postgres: Postgres,
) -> EnergyIoTError:
    """The error that tells what went wrong: the database, the command, the project, a model or a test."""
    log = state_dir / "dbt.log"
    failed = [node for node in nodes if node.status in FAILED]
    said = "\n".join([node.message for node in failed] + ([str(exception)] if exception else []))
    try:
        with postgres.connect():
            pass
    except StorageError as unreachable:
        return unreachable
    if CONNECTION_LOST.search(said):
        return StorageError(
            f"dbt lost its connection to PostgreSQL: {_plain(said).strip().splitlines()[-1].strip()}",
            fix=f"check the server's log for why, then run the command again; dbt's own log is {log}",
        )
    if OUT_OF_SPACE.search(said):
        return StorageError(
            f"PostgreSQL ran out of space: {_lines(said)}",
            fix="free disk space on the server, then run the command again; the tables are as before",
        )
    if isinstance(exception, DbtUsageException):
        return UsageError(f"dbt {' '.join(arguments)}: {exception}", fix="energy-iot dbt --help lists the commands")
    if not failed:
        return TransformationError(
            f"dbt {arguments[0]} failed before it ran anything:\n  {_lines(said) or 'it gave no reason'}",
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
