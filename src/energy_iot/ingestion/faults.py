"""What keeps a record of a file from becoming a row: which, why, and the rejects that say so."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from energy_iot.ingestion.readers.batch import LINE, Batch, Reject, shown

LARGEST_NUMBER: Final = 1e9  # no energy, temperature or voltage of a meter comes near
LONGEST_TEXT: Final = 200  # a longer meter id would not fit the database's indexes


@dataclass(frozen=True)
class Fault:
    """Rows with one kind of fault; `reason` has {value} where the value found goes."""

    rows: pl.Series
    reason: str
    values: pl.Series


def none_of(series: pl.Series) -> pl.Series:
    """A mask of no row."""
    return pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(series))


def without_faulty(rows: pl.DataFrame, faults: list[Fault], batch: Batch) -> tuple[pl.DataFrame, list[Reject]]:
    """The rows without a fault, and the rejects of the batch with those that have one, in the order of the file.

    Args:
        rows: One for each row of the batch's frame.
        faults: Of several of a row, the first is its reason.
        batch: What they were parsed from.
    """
    faults = [fault for fault in faults if fault.rows.any()]
    if not faults:
        return rows, batch.rejects
    bad = faults[0].rows
    for fault in faults[1:]:
        bad = bad | fault.rows
    rejects = sorted(batch.rejects + _explain(batch, bad, faults), key=lambda reject: reject.line_number)
    return rows.filter(~bad), rejects


def _explain(batch: Batch, bad: pl.Series, faults: list[Fault]) -> list[Reject]:
    """A reject for each bad row, with its first fault."""
    rows = bad.arg_true()
    reasons: list[str] = [""] * len(rows)
    for fault in reversed(faults):
        values = fault.values.gather(rows).cast(pl.String).to_list()
        for place, (is_faulty, value) in enumerate(zip(fault.rows.gather(rows).to_list(), values, strict=True)):
            if is_faulty:
                reasons[place] = fault.reason.replace("{value}", shown("" if value is None else value))
    lines = batch.frame[LINE].gather(rows).to_list()
    return [Reject(batch.part, line, batch.raw_text(line), reason) for line, reason in zip(lines, reasons, strict=True)]
