"""Parquet: batches of rows in the file's own types, a row being a record and its number the line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any, Final, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from energy_iot.errors import InputFileError
from energy_iot.ingestion.readers.batch import LINE, Batch, printable, storable
from energy_iot.ingestion.readers.containers import Part, explain_broken
from energy_iot.ingestion.sources import FieldPlaces

BATCH_ROWS: Final = 65_536
BUFFER_BYTES: Final = 2**20
FIRST_DAY: Final = (date(2, 1, 1) - date(1970, 1, 1)).days
LAST_DAY: Final = (date(9998, 12, 31) - date(1970, 1, 1)).days
KNOWN_TYPES: Final = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_boolean, pa.types.is_null,
    pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_date, pa.types.is_time,
    pa.types.is_timestamp,
)  # fmt: skip


@contextmanager
def _open_table(part: Part) -> Iterator[Any]:
    with explain_broken(part.label), part.open() as stream:
        try:
            # no pre-buffering: it would hold a whole row group, which has no upper size
            yield pq.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False)
        except pa.ArrowException as error:
            raise _damaged(part.label, str(error).splitlines()[0]) from error


def read_column_names(part: Part) -> list[str]:
    """The column names of a parquet file.

    Raises:
        InputFileError: It is damaged, or holds no row.
    """
    with _open_table(part) as table:
        if not table.metadata.num_rows:
            raise InputFileError(f"{part.label}: it has columns and no readings", fix="export the readings again")
        return list(table.schema_arrow.names)


def read_parquet(part: Part, layout: FieldPlaces) -> Iterator[Batch]:
    """Yield the rows.

    Raises:
        InputFileError: The file is damaged, or a column we need holds lists, structures or other than values.
    """
    columns = {key: layout.names[position] for key, position in layout.columns.items()}
    first_line, consumed = 1, 0
    with _open_table(part) as table:
        rows = max(table.metadata.num_rows, 1)
        for name in columns.values():
            _refuse_unusual(part.label, name, table.schema_arrow.field(name).type)
        for arrow in table.iter_batches(batch_size=BATCH_ROWS, columns=list(columns.values()), use_threads=False):
            found = _to_polars(arrow, list(columns), part.label)
            lines = pl.int_range(first_line, first_line + found.height, dtype=pl.Int64, eager=True).alias(LINE)
            frame = pl.DataFrame([lines, *map(_showable, found)])
            position = part.total * (first_line - 1 + found.height) // rows
            yield Batch(part.label, frame, [], 0, position - consumed, _row_text(frame, first_line))
            first_line, consumed = first_line + found.height, position
        if first_line - 1 != table.metadata.num_rows:
            raise _damaged(part.label, f"{first_line - 1:,} of {table.metadata.num_rows:,} rows are there")


def _damaged(label: str, reason: str) -> InputFileError:
    return InputFileError(
        f"{label}: it is truncated or damaged: {reason}",
        fix="fetch or write the file again; nothing of it was loaded",
    )


def _to_polars(arrow: Any, keys: list[str], label: str) -> pl.DataFrame:
    """A batch under our own column names: those of the file, and its metadata, are no concern of polars."""
    arrow.validate(full=True)  # polars trusts that texts are UTF-8
    try:
        return cast("pl.DataFrame", pl.from_arrow(pa.RecordBatch.from_arrays(arrow.columns, names=keys)))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _damaged(label, str(error).splitlines()[0]) from error


def _showable(series: pl.Series) -> pl.Series:
    """Dates and times moved to the years 2 to 9998: beyond, Python and polars cannot write them down for a reject."""
    if series.dtype == pl.Date:
        low, high = FIRST_DAY, LAST_DAY
    elif isinstance(series.dtype, pl.Datetime) and series.dtype.time_unit != "ns":  # which ends in 2262 anyway
        per_day = 86_400_000 * (1000 if series.dtype.time_unit == "us" else 1)
        low, high = FIRST_DAY * per_day, LAST_DAY * per_day
    elif series.dtype == pl.Time:
        low, high = 0, 86_400 * 10**9 - 1
    else:
        return series
    return series.to_physical().clip(low, high).cast(series.dtype)


def _refuse_unusual(label: str, name: str, kind: Any) -> None:
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(is_kind(values) for is_kind in KNOWN_TYPES):
        raise InputFileError(
            f"{label}: its column {printable(name)} is {kind}, not numbers, texts, dates or times",
            fix="write the column with a plain type",
        )


def _row_text(frame: pl.DataFrame, first_line: int) -> Callable[[int], str]:
    def raw_text(line: int) -> str:
        row = frame.row(line - first_line)[1:]
        return storable(",".join("" if value is None else str(value) for value in row))

    return raw_text
