"""Reading files without a database."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from energy_iot.ingestion.parse_readings import ReadingParser
from energy_iot.ingestion.readers.batch import Reject
from energy_iot.ingestion.source_files import inspect
from energy_iot.ingestion.sources import SourceMapping, choose_mappings
from energy_iot.settings import Settings

NOW = datetime(2030, 1, 1)


@dataclass(frozen=True)
class FileContent:
    """All that reading a file gave."""

    readings: pl.DataFrame
    rejects: list[Reject]
    lines: int
    blank: int
    interval_minutes: int | None
    progress: int
    total_bytes: int

    @property
    def rows(self) -> list[tuple[object, ...]]:
        return self.readings.rows()


ReadFile = Callable[..., FileContent]


@pytest.fixture(scope="session")
def read_file() -> ReadFile:
    """Recognise a file, parse it whole, and check what always holds: lines are readings and rejects."""

    known = cache(choose_mappings)  # reading YAML is slow, and these do not change

    def read(
        path: Path, source: str | None = None, mapping: SourceMapping | None = None, **settings: object
    ) -> FileContent:
        mappings = {"mine": mapping} if mapping else known(source)
        found = inspect(path, mappings, verify=True)
        parser = ReadingParser(Settings(**settings), NOW)
        frames, rejects, lines, blank, progress = [], [], 0, 0, 0
        for batch, layout in found.read():
            parsed = parser.parse(batch, layout)
            frames += [parsed.readings] if parsed.readings.height else []
            rejects += parsed.rejects
            lines += batch.records
            blank += batch.blank
            progress += batch.progress
        readings = pl.concat(frames) if frames else pl.DataFrame()
        assert readings.height + len(rejects) == lines
        return FileContent(readings, rejects, lines, blank, parser.interval_minutes, progress, found.total_bytes)

    return read
