"""Read an export of rejects back, after a person corrected its column raw_text in an editor or a spreadsheet."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from energy_iot.errors import InputFileError
from energy_iot.ingestion.readers.batch import printable, printable_name
from energy_iot.ingestion.readers.containers import explain_broken
from energy_iot.ingestion.spreadsheet import remove_guards

EXPORT_COLUMNS: Final = ("reject_id", "source_file", "line_number", "reason", "raw_text")
NEEDED_COLUMNS: Final = ("reject_id", "source_file", "line_number", "raw_text")
SEPARATORS: Final = ",;\t"  # spreadsheets of many countries write other ones than the comma
LONGEST_LINE: Final = 2**20
WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,18}")
EXPORT_AGAIN: Final = "export them with `energy-iot rejects export --out FILE.csv`, and change its column raw_text only"


@dataclass(frozen=True)
class Correction:
    """A row of the file: the text that the line should have had, and which line that is."""

    reject_id: int
    source_file: str
    line_number: int
    raw_text: str


def read_corrections(path: Path) -> Iterator[Correction]:
    """Yield the rows; the reason and columns that a person added are not looked at.

    Raises:
        InputFileError: It is no export of rejects, or no CSV in UTF-8; names the line.
    """
    if not path.is_file():
        raise InputFileError(f"{printable(str(path))} does not exist", fix=EXPORT_AGAIN)
    try:
        with explain_broken(printable_name(path)), path.open(encoding="utf-8-sig", errors="strict", newline="") as file:
            yield from _rows(file, printable_name(path))
    except InputFileError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            raise InputFileError(
                f"{printable_name(path)}: its text is not UTF-8", fix="save it again as UTF-8 (in Excel: CSV UTF-8)"
            ) from error
        raise


def _rows(file: TextIO, name: str) -> Iterator[Correction]:
    lines = _bounded_lines(file, name)
    header = next(lines, "")
    for separator in SEPARATORS:
        names = [column.strip() for column in header.rstrip("\r\n").replace('"', "").split(separator)]
        if set(NEEDED_COLUMNS) <= set(names):
            break
    else:
        raise InputFileError(
            f"{name}: it is no export of rejects: its first line does not name {', '.join(NEEDED_COLUMNS)}",
            fix=EXPORT_AGAIN,
        )
    places = [names.index(column) for column in NEEDED_COLUMNS]
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise _wrong(name, reader.line_num + 1, str(error)) from error
        if row is None:
            return
        if not any(field.strip() for field in row):
            continue
        if len(row) <= max(places):
            raise _wrong(name, reader.line_num + 1, f"{len(row)} fields where the header has {len(names)}")
        number, source_file, line, text = (row[place] for place in places)
        for column, value in (("reject_id", number), ("line_number", line)):
            if not WHOLE_NUMBER.fullmatch(value.strip()):
                raise _wrong(name, reader.line_num + 1, f"{column} is no whole number: {value[:40]!r}")
        yield Correction(int(number), remove_guards(source_file), int(line), remove_guards(text))


def _bounded_lines(file: TextIO, name: str) -> Iterator[str]:
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise InputFileError(f"{name}: a line has more than {LONGEST_LINE:,} characters", fix=EXPORT_AGAIN)
        if "\0" in line:
            raise InputFileError(f"{name}: it holds a NUL character", fix=EXPORT_AGAIN)
        yield line


def _wrong(name: str, line: int, what: str) -> InputFileError:
    return InputFileError(f"{name}, line {line}: {what}", fix=EXPORT_AGAIN)
