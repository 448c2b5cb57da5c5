"""Delimited text: a stream of bytes to fields, in bounded memory, one physical line one record.

Lines end where `bytes.splitlines` ends them: at LF, CRLF or a lone CR. Almost all lines are split by polars in one go;
those with quotes inside a field, a NUL, undecodable bytes or another number of fields than the header are looked at one
by one.
"""

import csv
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain, pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from energy_iot.errors import InputFileError
from energy_iot.ingestion.readers.batch import LINE, Batch, Reject, storable
from energy_iot.ingestion.readers.containers import Part
from energy_iot.ingestion.sources import UTF8_BOM, FieldPlaces

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]

CHUNK_BYTES: Final = 4 * 2**20
LINES_AT_ONCE: Final = 100_000
HEADER_BLOCK_BYTES: Final = 2**16
HEADER_BYTES: Final = 2**20
LONGEST_LINE_BYTES: Final = 16 * 2**20  # beyond it a file is refused: memory stays bounded
LONGEST_RECORD_BYTES: Final = 2**20  # beyond it a line is rejected
FIRST_LINE: Final = re.compile(rb"(?:[ \t\v\f]*[\r\n])*+([^\r\n]+)[\r\n]")
NEWLINE, QUOTE, NUL = b"\n", b'"', b"\0"
UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
# C0 controls that no text has, but for tab, LF, VT, FF, CR
CONTROL_BYTES: Final = frozenset(range(32)) - {9, 10, 11, 12, 13}


def read_header(part: Part) -> bytes:
    """The first line of a table that is not blank.

    Raises:
        InputFileError: The table is empty, binary, damaged, or has a header and no record.
    """
    buffer = b""
    for block, _ in chain(part.blocks(HEADER_BLOCK_BYTES), [(b"\n", 0)]):  # the end of the file ends a line
        buffer += block
        _refuse_binary(buffer, part.label)
        header, rest = _first_line(buffer.removeprefix(UTF8_BOM))
        if header is None and len(buffer) > HEADER_BYTES:
            raise InputFileError(
                f"{part.label}: no header line in its first {len(buffer):,} bytes",
                fix="give a text table with a header line",
            )
        if header is not None and rest.strip():
            return header
        if header is not None:
            buffer = header + NEWLINE
    if not buffer.removeprefix(UTF8_BOM).strip():
        raise InputFileError(
            f"{part.label}: it is empty: no header, no readings", fix="give a file with a header line and readings"
        )
    raise InputFileError(f"{part.label}: it has a header and no readings", fix="export the readings again")


def _first_line(buffer: bytes) -> tuple[bytes | None, bytes]:
    """The first line that is not blank and what follows it; None while its end has not been read."""
    found = FIRST_LINE.match(buffer)
    return (found[1], buffer[found.end() :]) if found else (None, buffer)


def _refuse_binary(buffer: bytes, label: str) -> None:
    fix = "give a text table: UTF-8, a header line, one reading a line"
    if buffer.startswith(UTF16_BOMS):
        raise InputFileError(f"{label}: its text is UTF-16", fix="save it again as UTF-8 (in Excel: CSV UTF-8)")
    header, _ = _first_line(buffer[:HEADER_BYTES])
    if found := CONTROL_BYTES & set(header if header is not None else buffer):
        raise InputFileError(f"{label}: it is binary: its first line holds the byte 0x{min(found):02x}", fix=fix)


def verify_readable(part: Part) -> None:
    """Read a compressed part to its end: only then its checksum tells that it is whole.

    Raises:
        InputFileError: It is truncated or damaged.
    """
    for _ in part.blocks(CHUNK_BYTES):
        pass


def read_text(part: Part, layout: FieldPlaces, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Batch]:
    """Yield the records after the header line.

    Raises:
        InputFileError: The bytes are damaged, or a line is longer than 16 MB.
    """
    line_number, header_seen, consumed = 1, False, 0
    for chunk, position in _whole_lines(part, chunk_bytes):
        records = _transcode(chunk, layout.mapping.encoding)
        if not header_seen:
            records, skipped, header_seen = _after_header(records)
            line_number += skipped
        for piece in _pieces(records):
            yield _split(piece, line_number, part.label, layout, position - consumed)
            consumed = position
            line_number += piece.count(NEWLINE)


def _whole_lines(part: Part, chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Chunks of whole lines, each line ending with LF, and the position in the file after each."""
    carry, position = b"", 0
    for block, position in part.blocks(chunk_bytes):  # the last one is needed after the loop
        data = carry + block
        # a CR at the very end may be half of a CRLF
        cut = 1 + max(data.rfind(NEWLINE), data.rfind(b"\r", 0, len(data) - 1))
        if cut:
            yield _unify_line_ends(data[:cut]), position
        carry = data[cut:]
        if len(carry) > LONGEST_LINE_BYTES:
            raise InputFileError(
                f"{part.label}: a line is longer than {LONGEST_LINE_BYTES:,} bytes, so that it is no table of readings",
                fix="give a text table with one reading a line",
            )
    if carry:
        lines = _unify_line_ends(carry)
        yield (lines if lines.endswith(NEWLINE) else lines + NEWLINE), position


def _pieces(records: bytes) -> Iterator[bytes]:
    """The same lines, at most 100,000 at a time: each may become a reject, which is larger than a short line."""
    if records.count(NEWLINE) <= LINES_AT_ONCE:
        if records:
            yield records
        return
    ends = np.flatnonzero(np.frombuffer(records, dtype=np.uint8) == ord(NEWLINE)) + 1
    cuts = [0, *ends[LINES_AT_ONCE - 1 : -1 : LINES_AT_ONCE].tolist(), len(records)]
    for start, end in pairwise(cuts):
        yield records[start:end]


def _unify_line_ends(chunk: bytes) -> bytes:
    if b"\r" not in chunk:
        return chunk
    return chunk.replace(b"\r\n", NEWLINE).replace(b"\r", NEWLINE)


def _transcode(chunk: bytes, encoding: str) -> bytes:
    """UTF-8; bytes that the encoding does not know stay as they are, and are no UTF-8 either."""
    if encoding == "utf-8" or chunk.isascii():
        return chunk
    return chunk.decode(encoding, errors="surrogateescape").encode("utf-8", errors="surrogateescape")


def _after_header(records: bytes) -> tuple[bytes, int, bool]:
    """What follows the header line, how many lines were skipped, and whether the header was among them."""
    skipped, start = 0, 0
    while start < len(records):
        end = records.index(NEWLINE, start)
        line, start, skipped = records[start:end], end + 1, skipped + 1
        if line.removeprefix(UTF8_BOM).strip():
            return records[start:], skipped, True
    return b"", skipped, False


def _split(chunk: bytes, first_line: int, part: str, layout: FieldPlaces, progress: int) -> Batch:
    """Split whole lines (each ending with LF) into the fields of `layout`."""
    if not chunk.strip():  # looked at one by one, a packed gigabyte of blank lines would take minutes
        return Batch(part, frame_of_fields([], [], layout), [], chunk.count(NEWLINE), progress, lambda _: "")
    data = np.frombuffer(chunk, dtype=np.uint8)
    ends = np.flatnonzero(data == ord(NEWLINE))
    starts = np.concatenate(([0], ends[:-1] + 1))
    odd = _odd_lines(chunk, data, starts, ends, layout)

    def raw_line(line: int) -> bytes:
        return chunk[starts[line - first_line] : ends[line - first_line]]

    rejects: list[Reject] = []
    lines: list[int] = []
    rows: list[list[str]] = []
    blank = 0
    for index in np.flatnonzero(odd).tolist():
        raw = raw_line(index + first_line)
        if not raw.strip():
            blank += 1
            continue
        fields = split_line(raw, layout)
        if isinstance(fields, str):
            rejects.append(Reject(part, index + first_line, storable(raw), fields))
        else:
            lines.append(index + first_line)
            rows.append(fields)
    regular = chunk
    if odd.any() or QUOTE in chunk:
        # what quotes are left surround whole fields without anything special inside
        keep = np.repeat(~odd, ends - starts + 1) & (data != ord(QUOTE))
        regular = data[keep].tobytes()
    frame = _regular_frame(regular, np.flatnonzero(~odd) + first_line, layout)
    if rows:
        frame = pl.concat([frame, frame_of_fields(rows, lines, layout)]).sort(LINE)
    return Batch(part, frame, rejects, blank, progress, lambda line: storable(raw_line(line)))


def _odd_lines(chunk: bytes, data: Bytes, starts: Positions, ends: Positions, layout: FieldPlaces) -> Mask:
    """Lines that polars must not split: blank, too long, oddly quoted, with NUL, not UTF-8, or of other field count."""
    wanted = len(layout.names) - 1
    delimiters = np.flatnonzero(data == ord(layout.mapping.delimiter))
    odd = np.zeros(len(ends), dtype=np.bool_)
    if len(delimiters) == wanted * len(ends):  # then the common case is quick to prove
        grid = delimiters.reshape(len(ends), wanted)
        proven = bool((grid[:, 0] >= starts).all() and (grid[:, -1] < ends).all())
    else:
        proven = False
    if not proven:
        odd |= np.searchsorted(delimiters, ends) - np.searchsorted(delimiters, starts) != wanted
    odd |= ends - starts > LONGEST_RECORD_BYTES
    if NUL in chunk:
        odd[np.searchsorted(ends, np.flatnonzero(data == 0))] = True
    if QUOTE in chunk:
        odd |= _awkwardly_quoted(data, ends, delimiters, ord(layout.mapping.delimiter))
    if layout.mapping.delimiter == "\t":  # a line of tabs has fields, and is blank all the same
        odd |= np.array([not chunk[start:end].strip() for start, end in zip(starts, ends, strict=True)])
    if not chunk.isascii() and not _is_utf8(chunk):
        for index in np.unique(np.searchsorted(ends, np.flatnonzero(data >= 128))).tolist():
            if not _is_utf8(chunk[starts[index] : ends[index]]):
                odd[index] = True
    return odd


def _awkwardly_quoted(data: Bytes, ends: Positions, delimiters: Positions, delimiter: int) -> Mask:
    """Which lines have quotes other than around a whole field that holds neither a quote nor a delimiter."""
    quotes = np.flatnonzero(data == ord(QUOTE))
    line = np.searchsorted(ends, quotes)
    in_line = np.bincount(line, minlength=len(ends))
    rank = np.arange(len(quotes)) - (np.cumsum(in_line) - in_line)[line]
    before, after = data[quotes - 1], data[quotes + 1]  # the last byte of data is a LF, as if before the first
    opens = (before == delimiter) | (before == ord(NEWLINE))
    closes = (after == delimiter) | (after == ord(NEWLINE))
    field = np.searchsorted(delimiters, quotes)
    same_field = np.zeros(len(quotes), dtype=np.bool_)
    same_field[1:] = field[1:] == field[:-1]
    fits = np.where(rank % 2 == 0, opens, closes & same_field)
    awkward: Mask = in_line % 2 == 1
    awkward[line[~fits]] = True
    return awkward


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def split_line(raw: bytes, layout: FieldPlaces) -> list[str] | str:
    """The fields of one line in UTF-8, or why it has none."""
    mapping = layout.mapping
    if len(raw) > LONGEST_RECORD_BYTES:
        return f"the line has {len(raw):,} bytes, more than {LONGEST_RECORD_BYTES:,}"
    if NUL in raw:
        return f"the line holds a NUL byte at position {raw.index(NUL) + 1}"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"the line is not {mapping.encoding}: byte 0x{raw[error.start]:02x} at position {error.start + 1}"
    if '"' in text:
        # a quoted field cannot go on in the next line: one line is one record
        if not _quoted_line(mapping.delimiter).fullmatch(text):
            return "its quotes do not fit: a quoted field begins and ends with one, and doubles those inside"
        try:
            fields = next(csv.reader([text], delimiter=mapping.delimiter, strict=True))
        except csv.Error as error:
            return f"its quotes do not fit: {error}"
    else:
        fields = text.split(mapping.delimiter)
    if len(fields) != len(layout.names):
        return f"{len(fields)} fields where the header has {len(layout.names)}"
    return fields


@cache
def _quoted_line(delimiter: str) -> re.Pattern[str]:
    """Lines as RFC 4180 has them; the csv module also takes a quote within a bare field, such as half a record's."""
    separator = re.escape(delimiter)
    one_field = rf'(?:"(?:[^"]|"")*+"|[^"{separator}]*+)'
    return re.compile(rf"{one_field}(?:{separator}{one_field})*+")


def _regular_frame(regular: bytes, lines: Positions, layout: FieldPlaces) -> pl.DataFrame:
    if not len(lines):
        return frame_of_fields([], [], layout)
    positions = sorted(layout.columns.values())
    keys = {position: key for key, position in layout.columns.items()}
    frame = pl.read_csv(
        regular,
        has_header=False,
        separator=layout.mapping.delimiter,
        quote_char=None,
        infer_schema=False,
        columns=positions,
    )
    if frame.height != len(lines):  # a rule of polars that we do not know: split it ourselves
        rows = [line.split(layout.mapping.delimiter) for line in regular.decode("utf-8").split("\n")[:-1]]
        return frame_of_fields(rows, lines.tolist(), layout)
    frame.columns = [keys[position] for position in positions]
    return frame.select(pl.Series(LINE, lines, dtype=pl.Int64), *layout.columns)


def frame_of_fields(rows: list[list[str]], lines: list[int], layout: FieldPlaces) -> pl.DataFrame:
    """The frame of a batch from the fields of lines, and their numbers; an empty field is null, as polars has it."""
    return pl.DataFrame(
        [
            pl.Series(LINE, lines, dtype=pl.Int64),
            *(
                pl.Series(key, [row[position] or None for row in rows], dtype=pl.String)
                for key, position in layout.columns.items()
            ),
        ]
    )
