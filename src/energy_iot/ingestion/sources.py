"""Source mappings: which column of whose file is which of our fields. One YAML file each, in configs/sources."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol, Self
from zoneinfo import available_timezones

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from energy_iot.errors import InputFileError, UnknownFormatError
from energy_iot.ingestion.readers.batch import printable
from energy_iot.settings import PROJECT_DIR

SOURCES_DIR: Final = PROJECT_DIR / "configs" / "sources"
ISO: Final = "iso"
UTF8_BOM: Final = b"\xef\xbb\xbf"
SHOWN_CHARACTERS: Final = 200  # of a header, in an error

ColumnName = Annotated[str, Field(min_length=1)]
DIRECTIVE: Final = re.compile(r"%(.)?")
DATE_DIRECTIVES: Final = ({"Y", "y"}, {"m", "b", "B"}, {"d"})
KNOWN_DIRECTIVES: Final = set().union(*DATE_DIRECTIVES) | {"H", "I", "M", "S", "p"}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PlainColumn(_Strict):
    """A column whose values are stored as they are."""

    column: ColumnName


class EnergyColumn(_Strict):
    """A column of energies, or of mean powers that become energies by the interval."""

    column: ColumnName
    unit: Literal["kWh", "Wh", "kW", "W"] = "kWh"

    def kwh_ratio(self, interval_minutes: int) -> tuple[int, int]:
        """Numerator and denominator that make kWh per interval of a value; a ratio is rounded once only."""
        power = self.unit in ("kW", "W")
        return interval_minutes if power else 1, (60 if power else 1) * (1000 if self.unit in ("Wh", "W") else 1)


class TimestampColumns(_Strict):
    """Where the time is, and how it is written."""

    columns: Annotated[list[ColumnName], Field(min_length=1, max_length=3)]
    formats: Annotated[list[str], Field(min_length=1)] = [ISO]
    time_zone: str | None = None
    edge: Literal["start", "end"] = "start"

    @field_validator("formats")
    @classmethod
    def _formats_are_known(cls, formats: list[str]) -> list[str]:
        for text in formats:
            found = {directive[1] for directive in DIRECTIVE.finditer(text)}
            if text == ISO:
                continue
            if unknown := sorted(f"%{letter or ''}" for letter in found - KNOWN_DIRECTIVES):
                raise ValueError(f"'{text}' uses {', '.join(unknown)}: known are iso and % with Y y m b B d H I M S p")
            if not all(found & any_of for any_of in DATE_DIRECTIVES):
                raise ValueError(f"'{text}' needs a year (%Y), a month (%m) and a day (%d)")
        return formats

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, value: str | None) -> str | None:
        if value is not None and value not in available_timezones():
            raise ValueError(f"'{value}' is no IANA time zone; an example is Africa/Lagos")
        return value


class MeterColumn(_Strict):
    """Which meter a reading is of."""

    column: ColumnName | None = None
    default_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.column is not None and self.default_id is not None:
            raise ValueError("has both a column and a default_id: keep one")
        return self


class ReadingColumns(_Strict):
    """The measured values; all but the consumption may be absent from a file."""

    consumption: EnergyColumn
    temperature: PlainColumn | None = None
    humidity: PlainColumn | None = None
    wind_speed: PlainColumn | None = None
    avg_past_consumption: EnergyColumn | None = None
    voltage: PlainColumn | None = None
    sub_metering_1: EnergyColumn | None = None
    sub_metering_2: EnergyColumn | None = None
    sub_metering_3: EnergyColumn | None = None
    anomaly_label: PlainColumn | None = None


READING_FIELDS: Final = tuple(ReadingColumns.model_fields)
NUMBER_FIELDS: Final = tuple(name for name in READING_FIELDS if name != "anomaly_label")


class TextFormat(_Strict):
    """How the lines of a text table are written."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "latin-1", "cp1252"] = "utf-8"


class SourceMapping(TextFormat):
    """One source format, as its YAML file describes it. configs/sources/long_format.yml explains each field."""

    description: str
    decimal_comma: bool = False
    null_values: list[str] = []
    recognised_by: list[ColumnName] = []
    ignored_columns: list[ColumnName] = []
    timestamp: TimestampColumns
    meter: MeterColumn = MeterColumn()
    interval_minutes: Annotated[int, Field(gt=0, le=1440)] | None = None
    readings: ReadingColumns

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, value: str) -> str:
        if not value.isascii() or value.isalnum() or value in "\"'\r\n\0 .-+:":
            raise ValueError(f"{value!r} cannot separate fields: usual are ',' ';' '|' and a tab, \"\\t\"")
        return value

    @model_validator(mode="after")
    def _columns_are_distinct(self) -> Self:
        if self.decimal_comma and self.delimiter == ",":
            raise ValueError("decimal_comma needs another delimiter than the comma")
        used = [normalise(column) for column in self.columns.values()]
        if twice := sorted({name for name in used if used.count(name) > 1}):
            raise ValueError(f"one column has two meanings: {', '.join(twice)}")
        return self

    @property
    def columns(self) -> dict[str, str]:
        """Their column for each of our keys: timestamp_1 ..., meter_id, and the fields of `readings`."""
        keys = {f"timestamp_{number}": name for number, name in enumerate(self.timestamp.columns, start=1)}
        if self.meter.column is not None:
            keys["meter_id"] = self.meter.column
        mapped = ((field, getattr(self.readings, field)) for field in READING_FIELDS)
        return keys | {field: column.column for field, column in mapped if column is not None}

    @property
    def required_columns(self) -> list[str]:
        """Columns that a header must have, in the words of the mapping."""
        needed = [*self.timestamp.columns, self.meter.column, self.readings.consumption.column, *self.recognised_by]
        return list(dict.fromkeys(name for name in needed if name is not None))


def normalise(column: str) -> str:
    """A column name as it is compared: case, surrounding blanks and a byte-order mark do not count."""
    return column.strip().strip("\ufeff").strip().casefold()


class FieldPlaces(Protocol):
    """What a reader has to know of a table."""

    @property
    def mapping(self) -> TextFormat:
        """How its lines are written."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its column names, in order."""

    @property
    def columns(self) -> dict[str, int]:
        """Position of each field that is wanted."""

    @property
    def mapping_name(self) -> str:
        """What it was recognised as."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """Columns that it has and that are not known."""


@dataclass(frozen=True)
class Layout:
    """Where the fields of a mapping are in one table.

    Attributes:
        names: The table's column names, in order.
        columns: Position for each key of `SourceMapping.columns` that the table has.
        ignored: Columns that the mapping does not know.
    """

    mapping_name: str
    mapping: SourceMapping
    names: tuple[str, ...]
    columns: dict[str, int]
    ignored: tuple[str, ...]


def load_mapping(path: Path) -> SourceMapping:
    """Read and check one mapping file.

    Raises:
        InputFileError: It cannot be read, or a field is wrong; names file and field.
    """
    fix = f"correct {path.name}; configs/sources/long_format.yml explains each field"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(f"the mapping {path} cannot be read: {error}", fix=fix) from error
    except yaml.YAMLError as error:
        raise InputFileError(f"the mapping {path} is not YAML: {error}", fix=fix) from error
    try:
        return SourceMapping.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'])) or 'the file'}: {item['msg']}" for item in error.errors()]
        raise InputFileError(f"the mapping {path} is wrong:\n  " + "\n  ".join(problems), fix=fix) from error


def load_mappings(folder: Path = SOURCES_DIR) -> dict[str, SourceMapping]:
    """All mappings of a folder by name, which is the file's name without .yml.

    Raises:
        InputFileError: One of them is wrong, or there is none.
    """
    mappings = {path.stem: load_mapping(path) for path in sorted(folder.glob("*.yml"))}
    if not mappings:
        raise InputFileError(f"no mapping in {folder}", fix="restore configs/sources from the project")
    return mappings


def choose_mappings(source: str | None, folder: Path = SOURCES_DIR) -> dict[str, SourceMapping]:
    """The mappings a file may have: all of `folder`, or the one that `source` names (a name or a .yml file).

    Raises:
        InputFileError: There is no such mapping, or it is wrong.
    """
    if source is None:
        return load_mappings(folder)
    if source.endswith((".yml", ".yaml")):
        return {Path(source).stem: load_mapping(Path(source))}
    path = folder / f"{source}.yml"
    known = sorted(found.stem for found in folder.glob("*.yml"))
    if source not in known:
        raise InputFileError(
            f"no source '{source}'", fix=f"choose one of {', '.join(known)}, or give the path of a mapping file (.yml)"
        )
    return {source: load_mapping(path)}


def recognise(header: bytes | Sequence[str], mappings: dict[str, SourceMapping], what: str) -> Layout:
    """Find the mapping whose columns a table has.

    Args:
        header: The first line of a text table, or the column names of a parquet file.
        mappings: The candidates, by name.
        what: Name of the file, for errors.

    Raises:
        UnknownFormatError: No mapping fits; says what was found and what is expected.
        InputFileError: Several fit equally well.
    """
    fitting: list[tuple[int, Layout]] = []
    lacking: list[tuple[int, str, list[str]]] = []
    for name, mapping in mappings.items():
        names = header_names(header, mapping)
        positions = {normalise(column): position for position, column in reversed(list(enumerate(names)))}
        missing = [column for column in mapping.required_columns if normalise(column) not in positions]
        if missing:
            lacking.append((len(mapping.required_columns) - len(missing), name, missing))
            continue
        layout = _layout(name, mapping, names, positions, what)
        fitting.append((len(layout.columns), layout))
    if not fitting:
        raise _unknown_header(header, mappings, lacking, what)
    best = [layout for count, layout in fitting if count == max(count for count, _ in fitting)]
    if len(best) > 1:
        raise InputFileError(
            f"{what}: its header fits several sources: {', '.join(layout.mapping_name for layout in best)}",
            fix=f"choose one: --source {best[0].mapping_name}",
        )
    return best[0]


def _layout(name: str, mapping: SourceMapping, names: list[str], positions: dict[str, int], what: str) -> Layout:
    comparable = [normalise(column) for column in names]
    mapped = {key: normalise(column) for key, column in mapping.columns.items()}
    if twice := sorted({column for column in mapped.values() if comparable.count(column) > 1}):
        raise InputFileError(
            f"{what}: the header has the column {', '.join(twice)} more than once",
            fix="keep one column of each name",
        )
    known = set(mapped.values()) | {normalise(column) for column in mapping.ignored_columns}
    unknown = [column.strip() for column in names if column.strip() and normalise(column) not in known]
    return Layout(
        mapping_name=name,
        mapping=mapping,
        names=tuple(names),
        columns={key: positions[column] for key, column in mapped.items() if column in positions},
        ignored=tuple(map(printable, unknown)),
    )


def header_names(header: bytes | Sequence[str], mapping: TextFormat) -> list[str]:
    """The column names that a header holds."""
    if not isinstance(header, bytes):
        return list(header)
    text = header.removeprefix(UTF8_BOM).decode(mapping.encoding, errors="replace")
    try:
        return next(csv.reader([text], delimiter=mapping.delimiter), [])
    except csv.Error:  # a field of more than 131,072 characters: no header of ours
        return []


def _unknown_header(
    header: bytes | Sequence[str],
    mappings: dict[str, SourceMapping],
    lacking: list[tuple[int, str, list[str]]],
    what: str,
) -> UnknownFormatError:
    found = header.decode("utf-8", errors="backslashreplace") if isinstance(header, bytes) else ",".join(header)
    found = found.encode("unicode_escape").decode() if not found.isprintable() else found
    if len(found) > SHOWN_CHARACTERS:
        found = f"{found[:SHOWN_CHARACTERS]}... ({len(found):,} characters)"
    expected = "\n  ".join(
        f"{name}: {mapping.delimiter.replace(chr(9), chr(92) + 't').join(mapping.required_columns)}"
        for name, mapping in mappings.items()
    )
    _, nearest, missing = max(lacking, key=lambda entry: (entry[0], -len(entry[2])))
    fix = "rename the columns; or copy configs/sources/long_format.yml, describe this file in it, "
    fix += "and give it with --source FILE.yml"
    if "reject_id" in found and "raw_text" in found:
        fix = "these are exported rejects: load their corrections with `energy-iot rejects retry FILE`"
    return UnknownFormatError(
        f"{what}: unknown header: {found}\n  expected the columns of one of these, in any order:\n  {expected}\n"
        f"  the nearest, {nearest}, also needs: {', '.join(missing)}",
        fix=fix,
    )
