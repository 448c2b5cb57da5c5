"""Timestamps: texts to instants in UTC, with offsets, zones, and the hours that occur twice or not at all."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

import polars as pl

from energy_iot.ingestion.sources import ISO

REMEMBERED_REPEATS: Final = 300_000
INSTANT: Final = pl.Datetime("us")
ISO_FAST: Final = "%Y-%m-%d %H:%M:%S"
# date, hour and minute, second, fraction, offset; a date alone is its midnight
ISO_PATTERN: Final = (
    r"^\s*(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<minute>[0-9]{2}:[0-9]{2})(?::(?P<second>[0-5][0-9])(?:[.,](?P<fraction>[0-9]{1,9}))?)?"
    r" ?(?P<offset>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?)?\s*$"
)
MARGIN: Final = timedelta(days=3)  # more than a zone, an offset and an interval move an instant


@dataclass(frozen=True)
class Instants:
    """Timestamps of a batch, as far as they could be read.

    Attributes:
        utc: Instants; null where one of the masks below is true.
        unreadable: Not in the file's format.
        skipped: A local time that the change to summer time leaves out.
        too_early: Long before the span asked for.
        too_late: Long after it.
    """

    utc: pl.Series
    unreadable: pl.Series
    skipped: pl.Series
    too_early: pl.Series
    too_late: pl.Series


@dataclass
class RepeatedHours:
    """Which local times of which meter were seen in an hour that occurs twice.

    The first reading of a meter at an ambiguous local time is taken for the earlier instant, each further one for the
    later. The memory is bounded: with more than 300,000 ambiguous readings in a file the oldest are forgotten.
    """

    seen: dict[int, None] = field(default_factory=dict)

    def is_second(self, meter_id: str, local: datetime) -> bool:
        """Whether this meter had a reading at this local time before; remembers this one."""
        key = hash((meter_id, local))
        if key in self.seen:
            return True
        self.seen[key] = None
        if len(self.seen) > REMEMBERED_REPEATS:
            for oldest in list(islice(self.seen, REMEMBERED_REPEATS // 10)):
                del self.seen[oldest]
        return False


def choose_format(texts: pl.Series, formats: list[str]) -> str:
    """The format that reads most of `texts`; of equals the first."""
    if len(formats) == 1:
        return formats[0]
    counts = [len(texts) - read_local(texts, text_format).null_count() for text_format in formats]
    return formats[counts.index(max(counts))]


def read_local(texts: pl.Series, text_format: str) -> pl.Series:
    """Clock times without a zone; with an offset in the text, the UTC time. Null where not in the format."""
    return _read(texts, text_format)[0]


def _read(texts: pl.Series, text_format: str) -> tuple[pl.Series, pl.Series]:
    """Clock times, and whether they are UTC already because the text has an offset."""
    no_offset = _all(False, len(texts))
    if text_format != ISO:
        read = texts.str.to_datetime(text_format, strict=False, time_unit="us", cache=False)
        if read.null_count() > texts.null_count():
            read = texts.str.strip_chars().str.to_datetime(text_format, strict=False, time_unit="us", cache=False)
        return read, no_offset
    fast = texts.str.to_datetime(ISO_FAST, strict=False, time_unit="us", cache=False)
    if fast.null_count() == texts.null_count():
        return fast, no_offset
    return _read_iso(texts)


def _read_iso(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    parts = texts.str.extract_groups(ISO_PATTERN).struct.unnest()
    offset = pl.col("offset")
    # "Z" and none are zero; -00:30 is negative though its hour is zero
    digits = offset.str.replace_all(":", "", literal=True).str.slice(1)
    minutes = (
        pl.when(offset.str.contains("^[+-]"))
        .then(
            digits.str.slice(0, 2).cast(pl.Int64) * 60 + digits.str.slice(2).cast(pl.Int64, strict=False).fill_null(0)
        )
        .otherwise(0)
    ) * pl.when(offset.str.starts_with("-")).then(-1).otherwise(1)
    clock = pl.concat_str(
        pl.col("date"), pl.lit(" "), pl.col("minute").fill_null("00:00"), pl.lit(":"), pl.col("second").fill_null("00")
    ).str.to_datetime(ISO_FAST, strict=False, time_unit="us", cache=False)
    microseconds = pl.col("fraction").fill_null("0").str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64)
    read = parts.select(
        local=clock + pl.duration(microseconds=microseconds) - pl.duration(minutes=minutes),
        is_utc=offset.is_not_null(),
    )
    return read["local"].cast(INSTANT), read["is_utc"]


def to_instants(
    stamps: pl.Series,
    *,
    text_format: str,
    zone: str,
    meter_ids: pl.Series,
    repeated: RepeatedHours,
    earliest: datetime,
    latest: datetime,
) -> Instants:
    """Turn the timestamps of a batch into instants in UTC.

    Args:
        stamps: Texts, or parquet's dates and times (with a zone: that zone counts).
        text_format: `iso`, or a strptime pattern.
        zone: IANA zone of clock times without an offset.
        meter_ids: The meter of each; all without one count as one meter.
        repeated: What was seen before of hours that occur twice; remembers this batch.
        earliest: Start of the span of interest, naive UTC; three days before it are still converted.
        latest: End of the span, likewise.
    """
    if stamps.dtype == pl.String:
        local, is_utc = _read(stamps, text_format)
    else:
        zoned = isinstance(stamps.dtype, pl.Datetime) and stamps.dtype.time_zone is not None
        naive = stamps.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zoned else stamps
        local, is_utc = naive.cast(INSTANT, strict=False), _all(zoned, len(stamps))
    # far-away years never reach the zone rules, where they could overflow
    too_early = (local < earliest - MARGIN).fill_null(False)
    too_late = (local > latest + MARGIN).fill_null(False)
    far = too_early | too_late
    near = local.zip_with(~far, _nulls(len(local))) if far.any() else local
    utc, skipped = _from_zone(near, is_utc, zone, meter_ids, repeated)
    return Instants(utc, local.is_null(), skipped, too_early, too_late)


def _all(value: bool, count: int) -> pl.Series:
    return pl.Series([value], dtype=pl.Boolean).new_from_index(0, count)


def _nulls(count: int) -> pl.Series:
    return pl.Series([None], dtype=INSTANT).new_from_index(0, count)


def _from_zone(
    local: pl.Series, is_utc: pl.Series, zone: str, meter_ids: pl.Series, repeated: RepeatedHours
) -> tuple[pl.Series, pl.Series]:
    """Instants of clock times in `zone`, and which of these do not exist there."""
    if zone == "UTC" or is_utc.all():
        return local, _all(False, len(local))
    earlier, later = _earlier_and_later(local, zone)
    ambiguous = ((earlier != later) & ~is_utc).fill_null(False)
    if ambiguous.any():
        rows = ambiguous.arg_true()
        second = [
            repeated.is_second(meter_id or "", clock_time)
            for meter_id, clock_time in zip(meter_ids.gather(rows), local.gather(rows), strict=True)
        ]
        earlier = earlier.scatter(rows.filter(pl.Series(second)), later.gather(rows.filter(pl.Series(second))))
    skipped = earlier.is_null() & local.is_not_null() & ~is_utc
    return local.zip_with(is_utc, earlier), skipped


def _earlier_and_later(local: pl.Series, zone: str) -> tuple[pl.Series, pl.Series]:
    """The instants of clock times: they differ in an hour that occurs twice; null where there is none."""
    earlier = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    later = local.dt.replace_time_zone(zone, ambiguous="latest", non_existent="null")
    return _as_utc(earlier), _as_utc(later)


def _as_utc(zoned: pl.Series) -> pl.Series:
    return zoned.dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def repeated_times(utc: pl.Series, zone: str) -> pl.DataFrame:
    """For instants in hours that occur twice, the clock time `local` and its `earlier` instant; else both null."""
    local = utc.dt.replace_time_zone("UTC").dt.convert_time_zone(zone).dt.replace_time_zone(None)
    earlier, later = _earlier_and_later(local, zone)
    return pl.DataFrame({"local": local, "earlier": earlier, "later": later}).select(
        pl.when(pl.col("earlier") != pl.col("later")).then(pl.col(name)).alias(name) for name in ("local", "earlier")
    )


def infer_interval_minutes(utc: pl.Series, meter_ids: pl.Series) -> int | None:
    """The most common positive distance between readings of a meter, minutes; None where there is none up to a day.

    Of equally common ones the shortest. Less than a minute counts as one.
    """
    distances = (
        pl.DataFrame({"utc": utc, "meter_id": meter_ids})
        .drop_nulls("utc")
        .sort("meter_id", "utc", nulls_last=True)
        .select(
            minutes=(pl.col("utc").diff().over("meter_id").dt.total_microseconds() / 60e6).filter(
                pl.col("utc").diff().over("meter_id") > timedelta(0)
            )
        )
        .select(pl.col("minutes").filter(pl.col("minutes") <= 1440).round(0).clip(1).cast(pl.Int64))
        .group_by("minutes")
        .len()
        .sort(["len", "minutes"], descending=[True, False])
    )
    return int(distances["minutes"][0]) if distances.height else None
