"""How a file was read, kept with it, so that a corrected line of it is read in the same way long after."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from energy_iot.ingestion.parse_readings import ReadingParser
from energy_iot.ingestion.readers.containers import Part
from energy_iot.ingestion.sources import Layout, SourceMapping
from energy_iot.settings import Settings


class TableLayout(BaseModel):
    """One table of a file.

    Attributes:
        part: Its name in rejects: the file, or archive/member.
        kind: What it is; rows of parquet are no lines that could be read again.
        names: The column names of its header, in order; none for parquet.
        timestamp_format: The one that was chosen; None where there was no reading to choose it by.
    """

    model_config = ConfigDict(frozen=True)

    part: str
    kind: Literal["text", "parquet"]
    names: list[str]
    timestamp_format: str | None


class FileLayout(BaseModel):
    """One file. Hours that occur twice are not here: the readings of the file tell which of the two is taken.

    Attributes:
        mapping: Its source mapping as it was then.
        time_zone: Zone of timestamps that name none.
        default_meter_id: Meter of lines that name none.
        interval_minutes: Minutes between readings.
        tables: Its tables.
        retried_file_id: The file whose rejects these readings were, for readings that `rejects retry` brought.
    """

    model_config = ConfigDict(frozen=True)

    mapping: SourceMapping
    time_zone: str
    default_meter_id: str
    interval_minutes: int
    tables: list[TableLayout]
    retried_file_id: int | None = None


def describe_layout(
    tables: tuple[tuple[Part, Layout], ...], parser: ReadingParser, settings: Settings, interval_minutes: int
) -> FileLayout:
    """What was found while a file was read."""
    mapping = tables[0][1].mapping
    return FileLayout(
        mapping=mapping,
        time_zone=mapping.timestamp.time_zone or settings.time_zone,
        default_meter_id=mapping.meter.default_id or settings.default_meter_id,
        interval_minutes=interval_minutes,
        tables=[
            TableLayout(
                part=part.label,
                kind=part.kind,
                names=list(layout.names) if part.kind == "text" else [],
                timestamp_format=parser.formats.get(part.label),
            )
            for part, layout in tables
        ],
    )
