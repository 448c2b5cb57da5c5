"""Files that nobody meant: good tables of every format, altered at random, and how many lines were given."""

import gzip
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

LONG = b"meter_id,timestamp,consumption_kwh,voltage_v,anomaly_label\n" + b"".join(
    b"m%d,2024-01-%02d %02d:30:00,%d.25,230,Normal\n" % (number % 3, 1 + number // 24, number % 24, number % 5)
    for number in range(40)
)
UCI = (
    b"Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
    b"Sub_metering_1;Sub_metering_2;Sub_metering_3\r\n"
    + b"".join(b"16/12/2006;17:%02d:00;4.2;0.4;234.8;18.4;0.0;1.0;17.0\r\n" % minute for minute in range(0, 60, 2))
    + b"21/12/2006;11:23:00;?;?;?;?;?;?;\r\n" * 3
)
KAGGLE = (
    b"Timestamp,Electricity_Consumed,Temperature,Humidity,Wind_Speed,Avg_Past_Consumption,Anomaly_Label\n"
    + b"".join(b"01/%02d/2024 0:00,0.4,0.5,0.4,0.4,0.7,Normal\n" % day for day in range(1, 29))
)
QUOTED = b'"meter_id","timestamp","consumption_kwh"\n' + b"".join(
    b'"a ""b"", c","2024-03-%02dT%02d:00:00+02:00","1.5"\n' % (1 + number // 24, number % 24) for number in range(60)
)
ACCENTS = b"meter_id,timestamp,consumption_kwh\n" + b"".join(
    f"Dépôt n°{number},2024-10-31 23:{number:02},{number}.5\n".encode() for number in range(60)
)
TABLES = (LONG, UCI, KAGGLE, QUOTED, ACCENTS)

VALUES = [
    b"", b" ", b"=cmd()", b"=1+1", b"+1", b"-1", b"@SUM(A1)", b"-0", b"-0.0", b"NaN", b"nan", b"inf", b"-inf",
    b"Infinity", b"1e308", b"-1e308", b"1e309", b"1e-400", b"1e9", b"1.0000001e9", b"1_000", b"1 000", b"1,5",
    b"1.2.3", b"0x1F", b"1e", b".5", b"5.", b"--5", b"9" * 30, "\u0663".encode(), "\uff11".encode(),
    "\u221e".encode(), "1\u00a0000".encode(), b"?", b"NA", b"NULL", b"null", b"None", b"N/A", b"true", b"\\N", b"\\.",
    b"'", b'"', b'""', b'"""', b'"x', b'x"', b'"a""b"', b'"a,b"', b'"a;b"', b"#REF!", b"1900-01-01 00:00",
    b"2100-01-01 00:00", b"0000-00-00", b"0001-01-01", b"9999-12-31 23:59:59", b"2024-02-29 12:00",
    b"2023-02-29 12:00", b"2024-02-30", b"2024-13-01", b"2024-01-32", b"2024-01-01 24:00:00", b"2024-01-01 23:59:60",
    b"2024-01-01T00:00:00Z", b"2024-01-01T00:00:00+05:30", b"2024-01-01T00:00:00-00:30", b"2024-01-01T00:00:00+99:99",
    b"2024-01-01T00:00:00.123456789", b"2024-01-01T00:00:00,5", b"2024-03-31 02:30", b"2024-10-27 02:30", b"20240101",
    b"1704067200", b"01/02/2024 0:00", b"29/02/2024", b"30/02/2024", b"12/31/1899 0:00", b"1/1/99", b"2024-1-1",
    b"-2024-01-01", b"+12024-01-01 00:00", "\u0662\u0660\u0662\u0664-01-01".encode(), b"January 1, 2024", b"m" * 199,
    b"m" * 201, b"m\0", b"\0", b"\x01", b"\x1a", b"\x85", b"\xa0", b"\xff", b"\xc3", b"\xc3\x28", b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80", "\u2028".encode(), "\u202e".encode(), "\ufeff".encode(), "\U0001f50c".encode(),
    "e\u0301".encode(), b"\t", b"\x0b", b"\x0c", b"${jndi:x}", b"'; drop table x; --", b"<script>", b"{{7*7}}",
    b"%s%n", b"../../etc/passwd",
]  # fmt: skip
LINE_ENDS = (b"\n", b"\r\n", b"\r", b"\n\r", b"\n\n", b"\r\r\n", b"\x85", "\u2028".encode())
BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0")
ENCODINGS = (
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-32-be",
    "latin-1",
    "cp1252",
    "utf-7",
    "utf-8-sig",
    "cp500",
)
NAMES = (
    b"readings.csv", b"readings.txt", b"readings", b"readings.csv.gz", b"readings.zip", b"readings.parquet",
    b"READINGS.CSV", b"=cmd().csv", b"a b, c.csv", "é\u202e.csv".encode(), b"\xff\xfe.csv", b"line\nbreak.csv",
    b"\x1b[31m.csv", b"x" * 200 + b".csv",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A file.

    Attributes:
        name: Its file name, in bytes.
        content: Its bytes.
        records: What may be accepted of it: the lines given, counted here; several where what is left of a damaged
            archive or parquet file may be one or all of its tables.
        blank: Blank lines after the header; None where that is not known.
        story: How it was made.
    """

    name: bytes
    content: bytes
    records: frozenset[int]
    blank: int | None
    story: str


def count_lines(content: bytes) -> tuple[int, int]:
    """Records, and blank lines after the header, of a text table; the reader's code has no part in it."""
    lines = re.sub(rb"\r\n?", b"\n", content).split(b"\n")
    if not lines[-1]:
        lines.pop()
    if lines and lines[0].startswith(BOMS[0]):
        lines[0] = lines[0][3:]
    blank = [not line.strip() for line in lines]
    first = blank.index(False) if False in blank else len(lines)
    return max(blank.count(False) - 1, 0), sum(blank[first:])


def make_mutant(seed: str) -> Mutant:
    """The file of a seed."""
    rng = Random(seed)
    name = NAMES[0] if rng.random() < 0.7 else rng.choice(NAMES)
    if rng.random() < 0.12:
        return _mutated_parquet(rng, name)
    table, story = _mutated_table(rng)
    records, blank = count_lines(table)
    if rng.random() < 0.65:
        return Mutant(name, table, frozenset({records}), blank, story)
    return _packed(rng, name, table, records, blank, story)


# --- text -------------------------------------------------------------------------------------------------------------


def _mutated_table(rng: Random) -> tuple[bytes, str]:
    content = rng.choice(TABLES)
    story = [f"table {TABLES.index(content)}"]
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        mutation = rng.choices(MUTATIONS, weights=WEIGHTS)[0]
        content = mutation(rng, content)
        story.append(mutation.__name__.strip("_"))
    return content, ", ".join(story)


def _place(rng: Random, content: bytes) -> int:
    return rng.randrange(len(content) + 1)


def _insert_bytes(rng: Random, content: bytes) -> bytes:
    place = _place(rng, content)
    piece = rng.choice(VALUES) if rng.random() < 0.7 else rng.randbytes(rng.randint(1, 8))
    return content[:place] + piece + content[place:]


def _delete_bytes(rng: Random, content: bytes) -> bytes:
    place = _place(rng, content)
    return content[:place] + content[place + rng.choice((1, 1, 3, 50)) :]


def _flip_bytes(rng: Random, content: bytes) -> bytes:
    altered = bytearray(content)
    for _ in range(rng.choice((1, 3, 30))):
        if altered:
            altered[rng.randrange(len(altered))] = rng.randrange(256)
    return bytes(altered)


def _swap_stretches(rng: Random, content: bytes) -> bytes:
    a, b, c = sorted(_place(rng, content) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def _cut(rng: Random, content: bytes) -> bytes:
    return content[: _place(rng, content)]


def _lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


def _shuffle_lines(rng: Random, content: bytes) -> bytes:
    lines = _lines(content)
    rng.shuffle(lines)
    return b"".join(lines)


def _double_lines(rng: Random, content: bytes) -> bytes:
    lines = _lines(content)
    start = rng.randrange(len(lines) + 1)
    return b"".join(lines[:start] + lines[start : start + 5] * rng.choice((2, 3)) + lines[start + 5 :])


def _delete_lines(rng: Random, content: bytes) -> bytes:
    lines = _lines(content)
    del lines[rng.randrange(len(lines) + 1) :][: rng.choice((1, 10))]
    return b"".join(line for line in lines if rng.random() > 0.05)


def _blank_lines(rng: Random, content: bytes) -> bytes:
    blanks = (b"\n", b"\r\n", b" \n", b"\t\n", b",,,,\n", b";;;;;;;;\r\n", b'""\n', b"\x0b\x0c\n")
    return b"".join(line + (rng.choice(blanks) if rng.random() < 0.2 else b"") for line in _lines(content))


def _change_line_ends(rng: Random, content: bytes) -> bytes:
    ends = [rng.choice(LINE_ENDS)] if rng.random() < 0.6 else LINE_ENDS
    return b"".join(line.rstrip(b"\r\n") + rng.choice(ends) for line in _lines(content))


def _join_lines(rng: Random, content: bytes) -> bytes:
    return b"".join(line.rstrip(b"\r\n") if rng.random() < 0.05 else line for line in _lines(content))


def _change_fields(rng: Random, content: bytes) -> bytes:
    lines = _lines(content)
    for _ in range(rng.choice((1, 3, 10))):
        if len(lines) < 2:
            break
        row = rng.randrange(1, len(lines))
        delimiter = b";" if b";" in lines[0] else b","
        body = lines[row].rstrip(b"\r\n")
        fields = body.split(delimiter)
        fields[rng.randrange(len(fields))] = rng.choice(VALUES)
        lines[row] = delimiter.join(fields) + lines[row][len(body) :]
    return b"".join(lines)


def _huge_field(rng: Random, content: bytes) -> bytes:
    size = rng.choices((9_990, 70_000, 140_000, 1_100_000), weights=(5, 3, 2, 1))[0]
    piece = rng.choice((b"x", b"9", b'"', "é".encode(), b" ", b"0", b"\0", b"\xff"))
    place = _place(rng, content)
    return content[:place] + piece * (size // len(piece)) + content[place:]


def _insert_nuls(rng: Random, content: bytes) -> bytes:
    return b"".join(line[:-1] + b"\0" + line[-1:] if rng.random() < 0.1 else line for line in _lines(content))


def _insert_bom(rng: Random, content: bytes) -> bytes:
    place = 0 if rng.random() < 0.7 else _place(rng, content)
    return content[:place] + rng.choice(BOMS) * rng.choice((1, 1, 2)) + content[place:]


def _encode(rng: Random, content: bytes) -> bytes:
    return content.decode("utf-8", errors="replace").encode(rng.choice(ENCODINGS), errors="replace")


def _mix_encodings(rng: Random, content: bytes) -> bytes:
    return b"".join(_encode(rng, line) if rng.random() < 0.1 else line for line in _lines(content))


def _change_header(rng: Random, content: bytes) -> bytes:
    lines = _lines(content)
    if not lines:
        return content
    body = lines[0].rstrip(b"\r\n")
    end = lines[0][len(body) :] or b"\n"
    delimiter = b";" if b";" in body else b","
    names = body.split(delimiter)
    change = rng.randrange(9)
    if change == 0:
        names.append(rng.choice(names))
    elif change == 1:
        names.pop(rng.randrange(len(names)))
    elif change == 2:
        rng.shuffle(names)
    elif change == 3:
        names = [name.upper() + b" " for name in names]
    elif change == 4:
        names += [b"column_%d" % number for number in range(rng.choice((1, 3_000, 100_000)))]
    elif change == 5:
        names = [b""] * len(names)
    elif change == 6:
        names[rng.randrange(len(names))] = rng.choice(VALUES)
    elif change == 7:
        return b"".join(lines[1:])
    else:
        lines.insert(rng.randrange(len(lines) + 1), lines[0])
        return b"".join(lines)
    lines[0] = delimiter.join(names) + end
    return b"".join(lines)


def _change_delimiter(rng: Random, content: bytes) -> bytes:
    old = b";" if b";" in content.split(b"\n")[0] else b","
    return content.replace(old, rng.choice((b";", b",", b"\t", b"|", b", ", b'","')))


def _quote(rng: Random, content: bytes) -> bytes:
    return re.sub(rb"[^,;\r\n]+", lambda found: b'"%b"' % found[0] if rng.random() < 0.3 else found[0], content)


def _repeat(rng: Random, content: bytes) -> bytes:
    return content + content[len(content.split(b"\n")[0]) + 1 :] * rng.choice((1, 20))


MUTATIONS: list[Callable[[Random, bytes], bytes]] = [
    _insert_bytes, _delete_bytes, _flip_bytes, _swap_stretches, _cut, _shuffle_lines, _double_lines, _delete_lines,
    _blank_lines, _change_line_ends, _join_lines, _change_fields, _huge_field, _insert_nuls, _insert_bom, _encode,
    _mix_encodings, _change_header, _change_delimiter, _quote, _repeat,
]  # fmt: skip
WEIGHTS = [3 if mutation in (_insert_bytes, _change_fields, _flip_bytes) else 1 for mutation in MUTATIONS]


# --- archives ---------------------------------------------------------------------------------------------------------

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
MEMBERS = (
    "readings.csv",
    "a/b.TXT",
    "été.csv",
    "../up.csv",
    "C:\\x.csv",
    "x\n.csv",
    "\x1b[31m.csv",
    "readings.dat",
    ".hidden.csv",
)


def _zip(rng: Random, members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", rng.choice(METHODS)) as archive:
        warnings.simplefilter("ignore", UserWarning)  # two members of one name
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def _packed(rng: Random, name: bytes, table: bytes, records: int, blank: int, story: str) -> Mutant:
    allowed: set[int] = {records}
    counted: int | None = blank
    kind = rng.choice(
        ("gzip", "gzip", "gzip of pieces", "gzip twice", "zip", "zip", "zip of two", "zip of twins", "zip in zip")
    )
    if kind == "gzip":
        content = gzip.compress(table, compresslevel=1)
    elif kind == "gzip of pieces":
        place = _place(rng, table)
        content = gzip.compress(table[:place]) + gzip.compress(table[place:])
    elif kind == "gzip twice":
        content = gzip.compress(gzip.compress(table))
        allowed, counted = {count_lines(gzip.compress(table))[0]}, None
    elif kind == "zip":
        content = _zip(rng, [(rng.choice(MEMBERS), table)])
    elif kind == "zip in zip":
        content = _zip(rng, [("inner.zip", _zip(rng, [("readings.csv", table)])), ("empty/", b"")])
    else:
        other, _ = _mutated_table(rng)
        more, _ = count_lines(other)
        second = "readings.csv" if kind == "zip of twins" else "more.csv"
        content = _zip(rng, [("readings.csv", table), (second, other)])
        allowed = {records, more, records + more}  # one that is no table is ignored with a warning
        counted = None
    damage = rng.random()
    if damage < 0.15:
        content, story = _cut(rng, content), f"{story}, cut"
    elif damage < 0.4:
        content, story = _flip_bytes(rng, content), f"{story}, flipped"
    elif damage < 0.5:
        content, story = _insert_bytes(rng, content), f"{story}, inserted"
    if damage < 0.5:  # it may be no archive any more, but a table of nobody's columns; that is refused
        counted = None
        if kind.startswith("gzip"):  # cut between two of its pieces, it is whole
            with suppress(OSError, EOFError, zlib.error):
                allowed = {count_lines(gzip.decompress(content))[0]}
    return Mutant(name, content, frozenset(allowed), counted, f"{story}, {kind}")


# --- parquet ----------------------------------------------------------------------------------------------------------


def _columns(rng: Random, count: int) -> dict[str, list[Any]]:
    """Candidates for the three columns that are needed, of usual and odd types."""
    start = datetime(2024, 1, 1)
    times = [start + timedelta(minutes=30 * number) for number in range(count)]
    odd_times = [datetime(1, 1, 1), datetime(1900, 1, 1), datetime(2100, 1, 1), datetime(9999, 12, 31), None]
    numbers = [float("nan"), float("inf"), -1.0, -0.0, 1e308, 1e9, 1.1e9, None, 5e-324]
    return {
        "timestamp": rng.choice(
            [
                pa.array(times, pa.timestamp("us")),
                pa.array(times, pa.timestamp("ns")),
                pa.array(times, pa.timestamp("s")),
                pa.array([moment.replace(tzinfo=UTC) for moment in times], pa.timestamp("ms", "Africa/Lagos")),
                pa.array([rng.choice([*times, *odd_times]) for _ in times], pa.timestamp("us")),
                pa.array([rng.randint(-(2**63), 2**63 - 1) for _ in times], pa.timestamp("us")),
                pa.array([rng.randint(-(2**53), 2**53) for _ in times], pa.timestamp("s")),
                pa.array([moment.date() for moment in times], pa.date32()),
                pa.array([rng.randint(-(2**31), 2**31 - 1) for _ in times], pa.date32()),
                pa.array([date(2024, 1, 1)] * count, pa.date64()),
                pa.array([moment.isoformat() for moment in times], pa.string()),
                pa.array([moment.isoformat() for moment in times], pa.large_string()),
                pa.array([moment.isoformat() for moment in times]).dictionary_encode(),
                pa.array([rng.choice([b"\xff", b"2024-01-01"]) for _ in times], pa.binary()),
                pa.array([time(1, 2)] * count, pa.time64("us")),
                pa.array([timedelta(1)] * count, pa.duration("us")),
                pa.array(range(count), pa.int64()),
                pa.nulls(count),
            ]
        ),
        "meter_id": rng.choice(
            [
                pa.array([f"m{number % 3}" for number in range(count)]),
                pa.array([rng.choice(["", "=cmd()", "m\0", "é" * 300, None, "\u202e"]) for _ in times], pa.string()),
                pa.array(range(count), pa.uint64()),
                pa.array([True] * count),
                pa.array([Decimal("1.5")] * count),
                pa.array([["m"]] * count),
                pa.array([{"m": 1}] * count),
                pa.array(["m", None] * (count // 2) + ["m"] * (count % 2)).dictionary_encode(),
            ]
        ),
        "consumption_kwh": rng.choice(
            [
                pa.array([number / 4 for number in range(count)]),
                pa.array([rng.choice(numbers) for _ in range(count)], pa.float64()),
                pa.array([1.5] * count, pa.float32()),
                pa.array([2**64 - 1] * count, pa.uint64()),
                pa.array([1] * count, pa.int8()),
                pa.array([Decimal("-1.25")] * count, pa.decimal128(20, 5)),
                pa.array([rng.choice(["1.5", "=cmd()", "1_000", "\u0663", "inf", None]) for _ in times], pa.string()),
                pa.array([True, False] * (count // 2) + [None] * (count % 2), pa.bool_()),
                pa.array([b"1.5"] * count, pa.binary()),
                pa.nulls(count),
                pa.array([1.5] * count).dictionary_encode(),
            ]
        ),
    }  # fmt: skip


def _mutated_parquet(rng: Random, name: bytes) -> Mutant:
    count = rng.choice((0, 1, 7, 50))
    columns = _columns(rng, count)
    names, arrays = list(columns), list(columns.values())
    change = rng.random()
    if change < 0.1:
        names[rng.randrange(3)] = rng.choice(["", "x\0", "\ud7ff", "METER_ID", "timestamp"])
    elif change < 0.2:
        names, arrays = [*names, rng.choice(["voltage_v", "meter_id ", "x"])], [*arrays, arrays[rng.randrange(3)]]
    buffer = io.BytesIO()
    table = pa.Table.from_arrays(arrays, names=names)
    packing = rng.choice(("none", "snappy", "gzip", "zstd"))
    pq.write_table(table, buffer, row_group_size=rng.choice((1, 20, 1000)), compression=packing)
    content, story = buffer.getvalue(), f"parquet of {table.schema.types}"
    if (damage := rng.random()) < 0.15:
        content, story = _cut(rng, content), f"{story}, cut"
    elif damage < 0.45:
        content, story = _flip_bytes(rng, content), f"{story}, flipped"
    elif damage < 0.5:
        content, story = _insert_bytes(rng, content), f"{story}, inserted"
    return Mutant(name, content, frozenset({count}), 0, story)
