"""The daily run, cut into what an orchestrator's tasks do: begin, one step each, end. Knows of no orchestrator."""

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
    nothing_to_do,
    run_step_of,
    start_run,
)
from energy_iot.settings import PROJECT_DIR, Settings

FIRST_STEP: Final = ALL_STEPS[0]
WAIT_SECONDS: Final = 600  # for another run on the same database
ASKED: Final = frozenset({"files", "source", "full_refresh", "rescore"})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What a step did; `finished` says that the run has nothing else to do."""

    run: StepRun
    finished: bool = False


def begin(settings: Settings, asked: Mapping[str, Any], until: datetime | None) -> str:
    """Record a run; returns its id.

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
    idle = name == FIRST_STEP and run.report.skipped is not None
    return Done(run, finished=idle and nothing_to_do(settings, run_id))


def end(settings: Settings, run_id: str, *, complete: bool) -> Path | None:
    """Record that the run succeeded; where all steps ran (`complete`), write the report and return its path."""
    from energy_iot.reporting.report import write_report
    from energy_iot.retention import remove_old_records

    end_run(settings, run_id, complete=complete)
    remove_old_records(settings)
    return write_report(settings) if complete else None


def fail(settings: Settings, run_id: str, error: BaseException) -> None:
    """Record that the run failed."""
    end_run(settings, run_id, error=error)


def _naive_utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None)
