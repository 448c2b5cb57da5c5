"""What every reader yields: fields of a stretch of a table, and the records that have none."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

RAW_TEXT_CHARACTERS: Final = 10_000
LINE: Final = "line"


class Reject(NamedTuple):
    """A record that could not become a reading."""

    source_file: str
    line_number: int
    raw_text: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """A stretch of one table.

    Attributes:
        part: Name of the table in rejects: the file, or archive/member.
        frame: Column `line` (Int64, 1 is the file's first line) and one for each key of the table's layout; texts, or
            in parquet the types of the file.
        rejects: Records that could not be split into fields.
        blank: Lines of blanks only, which are no records.
        progress: Bytes of the file consumed for this batch.
        raw_text: The record at a line, as it is stored with a reject.
    """

    part: str
    frame: pl.DataFrame
    rejects: list[Reject]
    blank: int
    progress: int
    raw_text: Callable[[int], str]

    @property
    def records(self) -> int:
        """Records of this stretch: each is in `frame` or among `rejects`."""
        return self.frame.height + len(self.rejects)


def storable(raw: bytes | str) -> str:
    """Text that PostgreSQL can hold: NUL and undecodable bytes escaped, and cut after 10,000 characters."""
    if isinstance(raw, bytes):
        # four bytes are the most one character takes
        text, whole = raw[: 4 * RAW_TEXT_CHARACTERS].decode("utf-8", errors="backslashreplace"), len(raw)
        measure = "bytes"
    else:
        text, whole, measure = raw, len(raw), "characters"
    text = text.replace("\0", "\\x00").encode("utf-8", errors="backslashreplace").decode()
    if len(text) > RAW_TEXT_CHARACTERS or (isinstance(raw, bytes) and whole > 4 * RAW_TEXT_CHARACTERS):
        return f"{text[:RAW_TEXT_CHARACTERS]}... (cut: {whole:,} {measure} in all)"
    return text


def printable(text: str) -> str:
    """A name of unknown origin on one line: what no terminal or database should get is escaped."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def printable_name(path: Path) -> str:
    """The name of a file; bytes that are no UTF-8 are escaped too."""
    return printable(os.fsencode(path.name).decode("utf-8", errors="backslashreplace"))


def shown(value: str, characters: int = 60) -> str:
    """A value for a sentence: quoted, unprintable characters escaped, cut."""
    cut = value[:characters]
    text = cut if cut.isprintable() else cut.encode("unicode_escape").decode()
    return f"'{text}'" if len(value) <= characters else f"'{text}...' ({len(value):,} characters)"
