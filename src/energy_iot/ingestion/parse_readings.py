"""Batches of fields to readings in our units, and rejects with their reason. Computes; touches no file or database."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from energy_iot.ingestion.faults import LARGEST_NUMBER, LONGEST_TEXT, Fault, none_of, without_faulty
from energy_iot.ingestion.readers.batch import Batch, Reject
from energy_iot.ingestion.sources import ISO, NUMBER_FIELDS, EnergyColumn, Layout, SourceMapping
from energy_iot.ingestion.timestamps import (
    RepeatedHours,
    choose_format,
    infer_interval_minutes,
    to_instants,
)
from energy_iot.settings import Settings

# our fields as raw_data.meter_readings calls them
TABLE_COLUMNS: Final = {"consumption": "electricity_consumed"}


@dataclass(frozen=True)
class Parsed:
    """Readings of a batch and what could not become one.

    Attributes:
        readings: meter_id, timestamp (UTC, start of the interval) and the columns of raw_data.meter_readings that the
            table has, in the order of the file.
        rejects: The others, in the order of the file.
    """

    readings: pl.DataFrame
    rejects: list[Reject]


@dataclass
class ReadingParser:
    """Parses one file: what its beginning tells, and what its lines share, is kept here.

    Attributes:
        settings: Defaults and limits.
        now: Naive UTC; readings much later are rejected.
        interval_minutes: Minutes between readings; None until the mapping or the first readings told.
        formats: The timestamp format of each table, by its name in rejects; its first readings decide.
        repeated: What was seen of hours that occur twice.
    """

    settings: Settings
    now: datetime
    interval_minutes: int | None = None
    formats: dict[str, str] = field(default_factory=dict)
    repeated: RepeatedHours = field(default_factory=RepeatedHours)

    def parse(self, batch: Batch, layout: Layout) -> Parsed:
        """Turn the fields of `batch` into readings."""
        frame, mapping = batch.frame, layout.mapping
        if not frame.height:
            return Parsed(pl.DataFrame(), batch.rejects)
        meter_ids, faults = self._meter_ids(frame, mapping)
        timestamps, time_faults = self._timestamps(frame, batch.part, mapping, meter_ids)
        faults += time_faults
        readings = {"meter_id": meter_ids, "timestamp": timestamps}
        for name in NUMBER_FIELDS:
            if name in frame.columns:
                column = getattr(mapping.readings, name)
                numbers, number_faults = _numbers(frame[name], mapping, column.column)
                if isinstance(column, EnergyColumn):
                    assert self.interval_minutes is not None
                    numbers = _in_kwh(numbers, column, self.interval_minutes)
                readings[TABLE_COLUMNS.get(name, name)] = numbers
                faults += number_faults
        if mapping.readings.anomaly_label and "anomaly_label" in frame.columns:
            column_name = mapping.readings.anomaly_label.column
            readings["anomaly_label"], label_faults = _texts(frame["anomaly_label"], mapping, column_name)
            faults += label_faults
        return Parsed(*without_faulty(pl.DataFrame(readings), faults, batch))

    def _meter_ids(self, frame: pl.DataFrame, mapping: SourceMapping) -> tuple[pl.Series, list[Fault]]:
        if mapping.meter.column is None:
            default = mapping.meter.default_id or self.settings.default_meter_id
            return pl.Series([default], dtype=pl.String).new_from_index(0, frame.height), []
        meter_ids, faults = _texts(frame["meter_id"], mapping, mapping.meter.column)
        missing = Fault(meter_ids.is_null(), f"{mapping.meter.column} is missing", frame["meter_id"])
        return meter_ids, [missing, *faults]

    def _timestamps(
        self, frame: pl.DataFrame, part: str, mapping: SourceMapping, meter_ids: pl.Series
    ) -> tuple[pl.Series, list[Fault]]:
        columns = mapping.timestamp
        stamps = _joined_timestamp(frame, len(columns.columns))
        if part not in self.formats:  # the beginning of a table decides for all of it
            self.formats[part] = choose_format(stamps, columns.formats) if stamps.dtype == pl.String else ISO
        zone = columns.time_zone or self.settings.time_zone
        earliest = self.settings.earliest_timestamp
        latest = self.now + timedelta(hours=self.settings.max_future_hours)
        found = to_instants(
            stamps,
            text_format=self.formats[part],
            zone=zone,
            meter_ids=meter_ids,
            repeated=self.repeated,
            earliest=earliest,
            latest=latest,
        )
        self.interval_minutes = (
            self.interval_minutes
            or mapping.interval_minutes
            or infer_interval_minutes(found.utc, meter_ids)
            or self.settings.default_interval_minutes
        )
        utc = found.utc - timedelta(minutes=self.interval_minutes) if columns.edge == "end" else found.utc
        name = " ".join(columns.columns)
        early = found.too_early | (utc < earliest).fill_null(False)
        late = found.too_late | (utc > latest).fill_null(False)
        missing = stamps.str.strip_chars() == "" if stamps.dtype == pl.String else none_of(stamps)
        unreadable = f"{name} {{value}} is not a time in the format {self.formats[part]}"
        return utc, [
            Fault(found.unreadable & (stamps.is_null() | missing), f"{name} is missing", stamps),
            Fault(found.unreadable, unreadable, stamps),
            Fault(early, f"{name} {{value}} is before {earliest:%Y-%m-%d %H:%M} UTC", stamps),
            Fault(late, f"{name} {{value}} is in the future, after {latest:%Y-%m-%d %H:%M} UTC", stamps),
            Fault(found.skipped, f"{name} {{value}} does not exist in {zone}: the clock skips it", stamps),
        ]


def _joined_timestamp(frame: pl.DataFrame, count: int) -> pl.Series:
    """The timestamp columns as one: texts joined by a space, or a single column of dates or times as it is."""
    if count > 1:
        names = [f"timestamp_{number}" for number in range(1, count + 1)]
        return frame.select(pl.concat_str([pl.col(name).cast(pl.String) for name in names], separator=" ")).to_series()
    stamps = frame["timestamp_1"]
    return stamps if stamps.dtype in (pl.String, pl.Date) or stamps.dtype == pl.Datetime else stamps.cast(pl.String)


def _texts(series: pl.Series, mapping: SourceMapping, name: str) -> tuple[pl.Series, list[Fault]]:
    """Texts without surrounding blanks, null where there is no value."""
    texts = series.cast(pl.String).str.strip_chars()
    missing = texts.is_in(["", *mapping.null_values]).fill_null(False)
    if missing.any():
        texts = texts.zip_with(~missing, pl.Series([None], dtype=pl.String).new_from_index(0, len(texts)))
    return texts, [
        Fault((texts.str.len_chars() > LONGEST_TEXT).fill_null(False), f"{name} {{value}} is too long", series),
        Fault(texts.str.contains("\0", literal=True).fill_null(False), f"{name} {{value}} holds a NUL", series),
    ]


def _numbers(series: pl.Series, mapping: SourceMapping, name: str) -> tuple[pl.Series, list[Fault]]:
    """Numbers, null where there is no value, and the rows that hold something else."""
    if series.dtype.is_numeric():
        numbers, unread = series.cast(pl.Float64, strict=False), none_of(series)
    else:
        numbers, unread = _read_numbers(series.cast(pl.String), mapping)
    finite = (numbers.is_finite() & (numbers.abs() <= LARGEST_NUMBER)).fill_null(True)
    reason = f"{name} {{value}} is not a number from -{LARGEST_NUMBER:.0e} to {LARGEST_NUMBER:.0e}"
    return numbers, [Fault(unread | ~finite, reason, series)]


def _read_numbers(texts: pl.Series, mapping: SourceMapping) -> tuple[pl.Series, pl.Series]:
    """Numbers of texts, and which texts are neither a number nor missing."""

    def read(some: pl.Series) -> pl.Series:
        if mapping.decimal_comma:  # a point would then separate thousands: 1.234 is not one and a bit
            some = some.str.replace(".", "?", literal=True).str.replace(",", ".", literal=True)
        return some.cast(pl.Float64, strict=False)

    numbers = read(texts)
    if any(_looks_like_number(value) for value in mapping.null_values):  # such as -9999
        missing = texts.str.strip_chars().is_in(mapping.null_values).fill_null(False)
        nulls = pl.Series([None], dtype=pl.Float64).new_from_index(0, len(texts))
        numbers = numbers.zip_with(~missing, nulls)
    unread = numbers.is_null() & texts.is_not_null()
    if not unread.any():
        return numbers, unread
    rows = unread.arg_true()
    stripped = texts.gather(rows).str.strip_chars()
    again = read(stripped)
    missing = stripped.is_in(["", *mapping.null_values])
    again = again.zip_with(~missing, pl.Series([None], dtype=pl.Float64).new_from_index(0, len(again)))
    return numbers.scatter(rows, again), unread.scatter(rows, again.is_null() & ~missing)


def _looks_like_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _in_kwh(values: pl.Series, column: EnergyColumn, interval_minutes: int) -> pl.Series:
    numerator, denominator = column.kwh_ratio(interval_minutes)
    values = values * numerator if numerator != 1 else values
    return values / denominator if denominator != 1 else values
