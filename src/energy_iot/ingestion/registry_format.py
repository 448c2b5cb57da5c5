"""The files beside the readings: what they hold, how they are recognised, and their lines as rows of raw_data.

Each kind has one header, in any order and case; columns that are not needed may be absent. Fields are separated by
commas, or by semicolons or tabs as spreadsheets of many countries write them, with decimal commas then. Dates are
YYYY-MM-DD, times UTC unless they name an offset; nothing is unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import polars as pl

from energy_iot.errors import InputFileError
from energy_iot.ingestion.faults import LARGEST_NUMBER, LONGEST_TEXT, Fault, none_of, without_faulty
from energy_iot.ingestion.readers.batch import Batch, Reject, printable
from energy_iot.ingestion.sources import ISO, TextFormat, header_names, normalise
from energy_iot.ingestion.timestamps import infer_interval_minutes, read_local
from energy_iot.settings import Settings

Kind = Literal["text", "number", "boolean", "date", "time"]
TEXT_FORMATS: Final = tuple(TextFormat(delimiter=delimiter) for delimiter in ",;\t")
BOOLEANS: Final = {"true": True, "t": True, "yes": True, "1": True, "false": False, "f": False, "no": False, "0": False}
DATE_FORMAT: Final = "%Y-%m-%d"


@dataclass(frozen=True)
class RegistryColumn:
    """A column of a kind of file, and of its table.

    Attributes:
        name: In both.
        kind: What its values are.
        needed: Whether each line must have a value.
        recognised_by: Whether a header must name it for the file to be of this kind.
        least: The smallest number that makes sense.
        most: The largest.
        choices: The texts it may hold; any, where there are none.
        future: Whether its times may lie ahead, as the end of what is planned does.
    """

    name: str
    kind: Kind = "text"
    needed: bool = False
    recognised_by: bool = False
    least: float = -LARGEST_NUMBER
    most: float = LARGEST_NUMBER
    choices: tuple[str, ...] = ()
    future: bool = False


@dataclass(frozen=True)
class RegistryFormat:
    """A kind of file.

    Attributes:
        content: Its name, as raw_data.ingested_files has it.
        holds: What its lines are, for people.
        columns: Its columns.
        in_order: Columns of which the second, where it has a value, must not be before the first.
    """

    content: str
    holds: str
    columns: tuple[RegistryColumn, ...]
    in_order: tuple[str, str] | None = None

    @property
    def table(self) -> str:
        """Where its lines go, schema.name."""
        return f"raw_data.{self.content}"

    @property
    def recognised_by(self) -> tuple[str, ...]:
        """Columns that a header must have."""
        return tuple(column.name for column in self.columns if column.recognised_by)


def _key(name: str, kind: Kind = "text") -> RegistryColumn:
    return RegistryColumn(name, kind, needed=True, recognised_by=True)


def _amount(name: str) -> RegistryColumn:
    return RegistryColumn(name, "number", least=0)


LATITUDE: Final = RegistryColumn("latitude", "number", least=-90, most=90)
LONGITUDE: Final = RegistryColumn("longitude", "number", least=-180, most=180)
CUSTOMER_CLASSES: Final = ("residential", "commercial", "industrial")
NODE_TYPES: Final = ("substation", "feeder", "transformer")
VALIDITY: Final = ("valid_from", "valid_to")
METERS: Final = "meters"
NETWORK_NODES: Final = "network_nodes"
NETWORK_READINGS: Final = "network_readings"
OUTAGES: Final = "outages"
INSPECTIONS: Final = "inspections"

FORMATS: Final = {
    known.content: known
    for known in (
        RegistryFormat(
            METERS,
            "registry of meters",
            (
                _key("meter_id"),
                RegistryColumn("service_point_id"),
                RegistryColumn("transformer_id", recognised_by=True),
                RegistryColumn("customer_class", choices=CUSTOMER_CLASSES),
                _amount("tariff_per_kwh"),
                RegistryColumn("currency"),
                _amount("contracted_power_kw"),
                RegistryColumn("is_prepaid", "boolean"),
                LATITUDE,
                LONGITUDE,
                _key("valid_from", "date"),
                RegistryColumn("valid_to", "date"),
            ),
            in_order=VALIDITY,
        ),
        RegistryFormat(
            NETWORK_NODES,
            "registry of network nodes",
            (
                _key("node_id"),
                RegistryColumn("node_type", needed=True, recognised_by=True, choices=NODE_TYPES),
                RegistryColumn("parent_id", recognised_by=True),
                _amount("rated_kva"),
                _amount("no_load_loss_kw"),
                _amount("load_loss_kw"),
                LATITUDE,
                LONGITUDE,
                _key("valid_from", "date"),
                RegistryColumn("valid_to", "date"),
            ),
            in_order=VALIDITY,
        ),
        RegistryFormat(
            NETWORK_READINGS,
            "readings of network nodes",
            (
                _key("node_id"),
                _key("timestamp", "time"),
                RegistryColumn("energy_in_kwh", "number", recognised_by=True),
            ),
        ),
        RegistryFormat(
            OUTAGES,
            "outages",
            (
                _key("node_id"),
                _key("start_time", "time"),
                RegistryColumn("end_time", "time", recognised_by=True, future=True),
                RegistryColumn("cause"),
            ),
            in_order=("start_time", "end_time"),
        ),
        RegistryFormat(
            INSPECTIONS,
            "outcomes of inspections",
            (
                _key("meter_id"),
                _key("inspected_on", "date"),
                RegistryColumn("found_theft", "boolean", needed=True, recognised_by=True),
                RegistryColumn("kind"),
                _amount("recovered_kwh"),
            ),
        ),
    )
}


@dataclass(frozen=True)
class RegistryLayout:
    """Where the fields of a kind of file are in one table.

    Attributes:
        known: The kind.
        names: The table's column names, in order.
        columns: Position of each column of the kind that the table has.
        ignored: Columns that the kind does not know.
        mapping: How lines are written.
    """

    known: RegistryFormat
    names: tuple[str, ...]
    columns: dict[str, int]
    ignored: tuple[str, ...]
    mapping: TextFormat

    @property
    def mapping_name(self) -> str:
        """Name of the kind, in place of a source."""
        return self.known.content


def recognise_registry(header: bytes | Sequence[str], what: str) -> RegistryLayout | None:
    """The kind of file that a header belongs to, or None.

    Args:
        header: The first line of a text table, or the column names of a parquet file.
        what: Name of the file, for errors.

    Raises:
        InputFileError: It names a column more than once, or fits several kinds.
    """
    for text_format in TEXT_FORMATS:
        names = header_names(header, text_format)
        comparable = [normalise(name) for name in names]
        fitting = [known for known in FORMATS.values() if set(known.recognised_by) <= set(comparable)]
        if fitting:
            break
    else:
        return None
    if len(fitting) > 1:
        raise InputFileError(
            f"{what}: its header fits several kinds of file: {', '.join(known.content for known in fitting)}",
            fix="make one file of each",
        )
    wanted = [column.name for column in fitting[0].columns]
    if twice := sorted({name for name in wanted if comparable.count(name) > 1}):
        raise InputFileError(
            f"{what}: the header has the column {', '.join(twice)} more than once", fix="keep one column of each name"
        )
    return RegistryLayout(
        known=fitting[0],
        names=tuple(names),
        columns={name: comparable.index(name) for name in wanted if name in comparable},
        ignored=tuple(printable(name.strip()) for name in names if name.strip() and normalise(name) not in set(wanted)),
        mapping=text_format,
    )


@dataclass
class RegistryParser:
    """Parses one file.

    Attributes:
        settings: Limits of times.
        now: Naive UTC; times much later are rejected.
        interval_minutes: Minutes between two readings of a node, by the first lines; None where there are no readings.
    """

    settings: Settings
    now: datetime
    interval_minutes: int | None = None

    def parse(self, batch: Batch, layout: RegistryLayout) -> tuple[pl.DataFrame, list[Reject]]:
        """Rows of the kind's table (its columns, those that the file lacks included), and what became none."""
        known, faults = layout.known, list[Fault]()
        if not batch.frame.height:
            return pl.DataFrame(), batch.rejects
        parsed: dict[str, pl.Series] = {}
        for column in known.columns:
            texts = _texts(batch.frame, column.name)
            missing = [Fault(texts.is_null(), f"{column.name} is missing", texts)] if column.needed else []
            if column.kind == "number" and layout.mapping.delimiter != ",":
                texts = texts.str.replace(",", ".", literal=True)
            parsed[column.name], found = self._values(texts, column)
            faults += missing + found
        if known.in_order:
            first, second = known.in_order
            reversed_rows = (parsed[second] < parsed[first]).fill_null(False)
            faults.append(Fault(reversed_rows, f"{second} {{value}} is before {first}", _texts(batch.frame, second)))
        if known.content == NETWORK_READINGS and self.interval_minutes is None:
            self.interval_minutes = (
                infer_interval_minutes(parsed["timestamp"], parsed["node_id"]) or self.settings.default_interval_minutes
            )
        return without_faulty(pl.DataFrame(parsed), faults, batch)

    def _values(self, texts: pl.Series, column: RegistryColumn) -> tuple[pl.Series, list[Fault]]:
        if column.kind == "number":
            return _numbers(texts, column)
        if column.kind == "boolean":
            return _booleans(texts, column)
        if column.kind == "date":
            return self._dates(texts, column)
        if column.kind == "time":
            return self._times(texts, column)
        return _checked_texts(texts, column)

    def _dates(self, texts: pl.Series, column: RegistryColumn) -> tuple[pl.Series, list[Fault]]:
        dates = texts.str.to_date(DATE_FORMAT, strict=False)
        # polars takes 2024-1-5 and 24-01-05 too: what is meant by that is a guess
        unread = texts.is_not_null() & ~((dates.dt.to_string(DATE_FORMAT) == texts).fill_null(False))
        return dates, [Fault(unread, f"{column.name} {{value}} is no date as 2024-01-31", texts)]

    def _times(self, texts: pl.Series, column: RegistryColumn) -> tuple[pl.Series, list[Fault]]:
        times = read_local(texts, ISO)
        earliest = self.settings.earliest_timestamp
        latest = self.now + timedelta(hours=self.settings.max_future_hours)
        late = none_of(texts) if column.future else (times > latest).fill_null(False)
        return times, [
            Fault(
                texts.is_not_null() & times.is_null(),
                f"{column.name} {{value}} is no time as 2024-01-31 08:00:00",
                texts,
            ),
            Fault(
                (times < earliest).fill_null(False),
                f"{column.name} {{value}} is before {earliest:%Y-%m-%d %H:%M} UTC",
                texts,
            ),
            Fault(late, f"{column.name} {{value}} is in the future, after {latest:%Y-%m-%d %H:%M} UTC", texts),
        ]


def _texts(frame: pl.DataFrame, name: str) -> pl.Series:
    """A column as texts without surrounding blanks, null where there is no value or no column."""
    if name not in frame.columns:
        return pl.Series(name, [None], dtype=pl.String).new_from_index(0, frame.height)
    return frame[name].cast(pl.String).str.strip_chars().replace({"": None})


def _checked_texts(texts: pl.Series, column: RegistryColumn) -> tuple[pl.Series, list[Fault]]:
    faults = [
        Fault((texts.str.len_chars() > LONGEST_TEXT).fill_null(False), f"{column.name} {{value}} is too long", texts),
        Fault(texts.str.contains("\0", literal=True).fill_null(False), f"{column.name} {{value}} holds a NUL", texts),
    ]
    if not column.choices:
        return texts, faults
    texts = texts.str.to_lowercase()
    strange = texts.is_not_null() & ~texts.is_in(column.choices).fill_null(False)
    return texts, [*faults, Fault(strange, f"{column.name} {{value}} is none of {', '.join(column.choices)}", texts)]


def _numbers(texts: pl.Series, column: RegistryColumn) -> tuple[pl.Series, list[Fault]]:
    numbers = texts.cast(pl.Float64, strict=False)
    fits = (numbers.is_finite() & (numbers.abs() <= LARGEST_NUMBER)).fill_null(False)
    unread = texts.is_not_null() & ~fits
    negative = (numbers < 0).fill_null(False) & (column.least == 0)
    outside = ((numbers < column.least) | (numbers > column.most)).fill_null(False)
    return numbers, [
        Fault(
            unread, f"{column.name} {{value}} is not a number from -{LARGEST_NUMBER:.0e} to {LARGEST_NUMBER:.0e}", texts
        ),
        Fault(negative, f"{column.name} {{value}} is negative", texts),
        Fault(outside, f"{column.name} {{value}} is not between {column.least:g} and {column.most:g}", texts),
    ]


def _booleans(texts: pl.Series, column: RegistryColumn) -> tuple[pl.Series, list[Fault]]:
    found = texts.str.to_lowercase().replace_strict(BOOLEANS, default=None, return_dtype=pl.Boolean)
    unread = texts.is_not_null() & found.is_null()
    return found, [Fault(unread, f"{column.name} {{value}} is neither true nor false", texts)]
