"""Recorded runs, cut into what an orchestrator's tasks do: begin, one step each, end. Knows of no orchestrator."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from energy_iot.errors import UsageError
from energy_iot.ingestion.source_files import files_in
from energy_iot.pipeline import (
    ALL_STEPS,
    RunOptions,
    StepRun,
    end_run,
    is_complete,
    nothing_to_do,
    run_step_of,
    start_run,
)
from energy_iot.settings import PROJECT_DIR, Settings

WAIT_SECONDS: Final = 600  # for another run on the same database
ASKED: Final = frozenset({"files", "source", "full_refresh", "rescore"})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What a step did; `finished` says that the run has nothing else to do."""

    run: StepRun
    finished: bool = False


def begin_daily(settings: Settings, asked: Mapping[str, Any], until: datetime | None) -> str:
    """Record a run of the whole pipeline; returns its id.

    Args:
        settings: Name the landing folder.
        asked: What was asked of this run: files, source, full_refresh, rescore; any may be absent or None.
        until: End of the run's data interval; files with readings from then on are left for the next. Files that were
            asked for by name are taken whatever they hold.

    Raises:
        UsageError: Something else was asked, or the landing folder is not there.
    """
    given = {name: value for name, value in asked.items() if value not in (None, "", [])}
    if unknown := sorted(given.keys() - ASKED):
        raise UsageError(f"a run takes no {', '.join(unknown)}", fix=f"it takes {', '.join(sorted(ASKED))}")
    named = tuple(Path(file) for file in given.get("files", ()))
    options = RunOptions(
        files=named or landing_folder(settings),
        pattern="*" if named else settings.landing_pattern,
        source=given.get("source"),
        full_refresh=bool(given.get("full_refresh", False)),
        rescore=given.get("rescore"),
        wait_seconds=WAIT_SECONDS,
        before=None if named or until is None else _naive_utc(until),
    )
    return start_run(settings, options)


def begin_model_renewal(settings: Settings) -> str | None:
    """Record a run that trains a model and may put it into force; returns its id, None while none is in force."""
    from energy_iot.ml.config import VERSION_IN_FORCE
    from energy_iot.storage.postgres import open_postgres

    with open_postgres(settings) as postgres, postgres.connect() as connection:
        if connection.execute(VERSION_IN_FORCE).fetchone() is None:
            return None
    return start_run(settings, RunOptions(wait_seconds=WAIT_SECONDS))


def landing_folder(settings: Settings) -> tuple[Path, ...]:
    """The landing folder; nothing while no file in it fits the pattern.

    Raises:
        UsageError: The folder is not there.
    """
    folder = PROJECT_DIR / settings.landing_dir.expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"the landing folder {folder} is not there", fix="make it, or set landing_dir to where files arrive"
        )
    return (folder,) if files_in(folder, settings.landing_pattern) else ()


def do_step(settings: Settings, run_id: str, name: str) -> Done:
    """Run one step of the run; raises what the step raises."""
    run = run_step_of(settings, run_id, name)
    if run.report.skipped is None:
        return Done(run)
    # a model that is kept out leaves nothing to publish, and no new file mostly nothing to do
    return Done(run, finished=name == "promote_model" or (name == ALL_STEPS[0] and nothing_to_do(settings, run_id)))


def end(settings: Settings, run_id: str, *, idle: bool) -> Path | None:
    """Record that the run succeeded; unless it was idle, write the report and return its path."""
    from energy_iot.reporting.report import write_report
    from energy_iot.retention import remove_old_records

    end_run(settings, run_id, complete=not idle and is_complete(settings, run_id))
    remove_old_records(settings)
    return None if idle else write_report(settings)


def fail(settings: Settings, run_id: str, error: BaseException) -> None:
    """Record that the run failed."""
    end_run(settings, run_id, error=error)


def _naive_utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None)
