"""What becomes of one file on its way into raw_data: its row there, its report, and when it is refused."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

import psycopg

from energy_iot.errors import InputFileError
from energy_iot.ingestion.source_files import RegistryFile, SourceFile
from energy_iot.pipeline import RunContext
from energy_iot.storage.changes import READINGS

SHOWN_REJECTS: Final = 3
Status = Literal["new", "loaded", "already loaded", "left for later"]
NEW: Final = "new"
LOADED: Final = "loaded"
ALREADY_LOADED: Final = "already loaded"
LEFT_FOR_LATER: Final = "left for later"


class LeftForLaterError(Exception):
    """A file holds readings that this run is not to take yet: nothing of it is loaded."""


@dataclass
class FileReport:
    """What became of one file; JSON-able, in the details of the step.

    Attributes:
        file: Its name.
        source: What it was recognised as: a source mapping, or a kind of file of the registry.
        status: Whether it is new.
        content: What it holds: readings, or that kind.
        lines: Records read.
        loaded: Those that became rows.
        without_consumption: Rows among them without an energy; of readings, also those of the network.
        rejected: The others.
        late: Readings that came a day or more after later ones had been loaded.
        blank: Lines of blanks only.
        interval_minutes: Minutes between readings; None where there are none.
        first_timestamp: The earliest reading, UTC.
        last_timestamp: The latest.
        first_rejects: Line and reason of the first that were rejected.
    """

    file: str
    source: str
    status: Status
    content: str = READINGS
    lines: int = 0
    loaded: int = 0
    without_consumption: int = 0
    rejected: int = 0
    late: int = 0
    blank: int = 0
    interval_minutes: int | None = None
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    first_rejects: list[str] = field(default_factory=list)

    @property
    def details(self) -> dict[str, Any]:
        """Its figures; that readings are readings is left out."""
        figures = asdict(self)
        return figures if self.content != READINGS else {name: figures[name] for name in figures if name != "content"}


def register(connection: psycopg.Connection, source: SourceFile | RegistryFile, context: RunContext) -> int | None:
    """Reserve the file's row, to be completed at the end; None when its content is loaded.

    The unique hash makes a second process wait here until the first has committed or given up.
    """
    is_registry = isinstance(source, RegistryFile)
    row = connection.execute(
        "insert into raw_data.ingested_files (sha256, file_name, source_name, interval_minutes, size_bytes, "
        "lines_read, readings_loaded, readings_without_consumption, readings_rejected, run_id, content) "
        "values (%s, %s, %s, %s, %s, 0, 0, 0, 0, %s, %s) on conflict (sha256) do nothing returning file_id",
        (
            source.fingerprint.sha256,
            source.name,
            source.mapping_name,
            None if is_registry else 1,
            source.fingerprint.size_bytes,
            context.run_id,
            source.mapping_name if is_registry else READINGS,
        ),
    ).fetchone()
    return int(row[0]) if row else None


def leave_for_later(last: datetime | None, before: datetime | None) -> None:
    """Give a file up whose latest reading is of `before` or after it, both UTC.

    Raises:
        LeftForLaterError: It is; to be caught outside of the file's transaction.
    """
    if last is not None and before is not None and last >= before:
        raise LeftForLaterError


def refuse_too_many_rejects(report: FileReport, allowed: float) -> None:
    """Refuse a file of which more lines are rejected than `allowed`, a share.

    Raises:
        InputFileError: Its share is larger; says which lines, and why.
    """
    if report.rejected <= allowed * report.lines:
        return
    describe = "describe it in a mapping (--source), " if report.content == READINGS else ""
    raise InputFileError(
        f"{report.file}: {report.rejected:,} of {report.lines:,} lines cannot be read "
        f"({report.rejected / report.lines:.1%}, allowed are {allowed:.1%}); nothing of it was loaded\n  "
        + "\n  ".join(report.first_rejects),
        fix=f"check the format with `energy-iot check-source`, {describe}correct the file, "
        "or raise the setting max_rejected_share",
    )
