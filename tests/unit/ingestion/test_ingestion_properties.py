"""What holds for any file: readings read back as they were written, and no line is lost, whatever the bytes."""

import csv
import gzip
import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_iot.errors import EnergyIoTError
from energy_iot.ingestion.sources import SourceMapping

from .conftest import FileContent, ReadFile

START = datetime(2015, 1, 1)
NAMES = {"meter": "meter_id", "kwh": "electricity_consumed", "volt": "voltage", "label": "anomaly_label"}


@dataclass(frozen=True)
class Dialect:
    """A way to write a table."""

    delimiter: str
    decimal_comma: bool
    encoding: str
    line_end: str
    quoting: int
    null: str
    columns: tuple[str, ...]
    time_format: str
    start: bytes
    last_line_end: bool
    pack: Callable[[bytes], bytes]

    @property
    def mapping(self) -> SourceMapping:
        return SourceMapping.model_validate(
            {
                "description": "any",
                "delimiter": self.delimiter,
                "encoding": self.encoding,
                "decimal_comma": self.decimal_comma,
                "null_values": [self.null],
                "timestamp": {"columns": ["time"], "formats": [self.time_format]},
                "meter": {"column": "meter"},
                "interval_minutes": 30,
                "readings": {
                    "consumption": {"column": "kwh"},
                    "voltage": {"column": "volt"},
                    "anomaly_label": {"column": "label"},
                },
            }
        )

    def write(self, readings: list[dict[str, Any]]) -> bytes:
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, delimiter=self.delimiter, quoting=self.quoting, lineterminator=self.line_end)
        writer.writerow(self.columns)
        for reading in readings:
            writer.writerow([self._text(reading.get(name, "other")) for name in self.columns])
        text = buffer.getvalue() if self.last_line_end else buffer.getvalue().removesuffix(self.line_end)
        start = self.start if self.encoding == "utf-8" else b""
        return self.pack(start + text.encode(self.encoding))

    def _text(self, value: object) -> str:
        if value is None:
            return self.null
        if isinstance(value, datetime):
            return value.isoformat(" ") if self.time_format == "iso" else value.strftime(self.time_format)
        if isinstance(value, float):
            return repr(value).replace(".", "," if self.decimal_comma else ".")
        return str(value)


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inside.csv", content)
    return buffer.getvalue()


@st.composite
def dialects(draw: st.DrawFn) -> Dialect:
    delimiter = draw(st.sampled_from([",", ";", "|", "\t"]))
    return Dialect(
        delimiter=delimiter,
        decimal_comma=delimiter != "," and draw(st.booleans()),
        encoding=draw(st.sampled_from(["utf-8", "latin-1", "cp1252"])),
        line_end=draw(st.sampled_from(["\n", "\r\n", "\r"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        null=draw(st.sampled_from(["", "?", "NULL", "-9999"])),
        columns=tuple(draw(st.permutations(["meter", "time", "kwh", "volt", "label", "more"]))),
        time_format=draw(st.sampled_from(["iso", "%d/%m/%Y %H:%M:%S", "%m-%d-%y %I:%M:%S %p", "%Y%m%d%H%M%S"])),
        start=draw(st.sampled_from([b"", b"\xef\xbb\xbf"])),
        last_line_end=draw(st.booleans()),
        pack=draw(st.sampled_from([bytes, gzip.compress, zipped])),
    )


# letters, digits, signs and inner spaces that cp1252 and latin-1 have too
WORDS = (
    st.text("abzAZ09_-./é#=+@'\" ;,|ß€"[:-1], min_size=1, max_size=12)
    .map(str.strip)
    .filter(lambda text: text not in ("", "?", "NULL", "-9999"))
)
NUMBERS = st.none() | st.floats(-1e9, 1e9, allow_nan=False).filter(lambda number: number != -9999)
READINGS = st.lists(
    st.fixed_dictionaries(
        {
            "meter": WORDS,
            "time": st.integers(0, 300_000).map(
                lambda minutes: START + timedelta(minutes=minutes, seconds=minutes % 60)
            ),
            "kwh": NUMBERS,
            "volt": NUMBERS,
            "label": st.none() | WORDS,
        }
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


@settings(deadline=None)  # a busy machine is no fault
@given(readings=READINGS, dialect=dialects())
def test_readings_read_back_as_written_in_any_dialect(
    folder: Path, read_file: ReadFile, readings: list[dict[str, Any]], dialect: Dialect
) -> None:
    path = folder / "any.csv"
    path.write_bytes(dialect.write(readings))
    content = read_file(path, mapping=dialect.mapping)
    assert content.rejects == []
    expected = [{NAMES.get(name, "timestamp"): value for name, value in reading.items()} for reading in readings]
    found = content.readings.to_dicts()
    assert [sorted(row.items()) for row in found] == [sorted(row.items()) for row in expected]


# --- bytes that nobody meant ------------------------------------------------------------------------------------------

GOOD = b"meter_id,timestamp,consumption_kwh,voltage_v\n" + b"".join(
    b"m%d,2024-01-01 %02d:30:00,%d.25,230\n" % (number % 3, number % 24, number % 5) for number in range(30)
)
GOOD_UCI = (
    b"Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
    b"Sub_metering_1;Sub_metering_2;Sub_metering_3\r\n"
    + b"".join(b"16/12/2006;17:%02d:00;4.2;0.4;234.8;18.4;0.0;1.0;17.0\r\n" % minute for minute in range(0, 60, 3))
    + b"21/12/2006;11:23:00;?;?;?;?;?;?;\r\n" * 3
)
GOOD_KAGGLE = (
    b"Timestamp,Electricity_Consumed,Temperature,Humidity,Wind_Speed,Avg_Past_Consumption,Anomaly_Label\n"
    + b"".join(b"01/%02d/2024 0:00,0.4,0.5,0.4,0.4,0.7,Normal\n" % day for day in range(1, 29))
)
NASTY = st.sampled_from(
    [b"\0", b"\r", b"\n", b"\r\n", b'"', b'""', b",", b";", b"\t", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\x1a", b"\x85",
     b"\xe2\x80\xa8", b"=cmd()", b"NaN", b"-inf", b"1e308", b"-1", b"1900-01-01 00:00", b"2100-01-01", b"\\N", b"\\.",
     b"\n\\.\n", b" ", b"\x0b", b"\x0c", b"x" * 5000, b"0" * 400, "\u0661".encode(), b"#", b"--", b"/*", b"24:00:00",
     b"2024-01-01 00:00:60", b"2024-01-01T00:00:00+99:99", b"2024-01-01 00:00:00-24:00", b"1,5"]
)  # fmt: skip
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "double"]),
        st.floats(0, 1),
        st.integers(1, 40),
        NASTY | st.binary(min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=8,
)


def mutate(content: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    for kind, where, length, piece in changes:
        place = int(where * len(content))
        stretch = content[place : place + length]
        put = {"insert": piece + stretch, "replace": piece, "delete": b"", "double": stretch * 2}[kind]
        content = content[:place] + put + content[place + length :]
    return content


def records_of(content: bytes) -> int:
    """Lines with more than blanks after the header, counted in another way than the reader does."""
    return sum(bool(line.strip()) for line in content.removeprefix(b"\xef\xbb\xbf").splitlines()) - 1


def read_or_refuse(read_file: ReadFile, path: Path, **settings: object) -> FileContent | None:
    try:
        return read_file(path, **settings)
    except EnergyIoTError as error:
        refused = error
    assert refused.exit_code == 3
    assert path.name in refused.problem
    return None


@settings(max_examples=200, deadline=None)
@given(
    good=st.sampled_from([GOOD, GOOD_UCI, GOOD_KAGGLE]), changes=CHANGES, zone=st.sampled_from(["UTC", "Africa/Cairo"])
)
def test_no_line_is_lost_whatever_the_bytes(
    folder: Path, read_file: ReadFile, good: bytes, changes: list[tuple[str, float, int, bytes]], zone: str
) -> None:
    content = mutate(good, changes)
    path = folder / "mutated.csv"
    path.write_bytes(content)
    found = read_or_refuse(read_file, path, time_zone=zone)
    if found is None:
        return
    assert found.lines == records_of(content)
    numbers = [number for name in found.readings.columns for number in found.readings[name].to_list()]
    assert all(math.isfinite(number) for number in numbers if isinstance(number, float))
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    for reject in found.rejects:
        assert reject.reason
        assert "\0" not in reject.raw_text
        reject.raw_text.encode()
        raw = lines[reject.line_number - 1]
        if raw.isascii() and b"\0" not in raw and len(raw) <= 10_000:
            assert reject.raw_text == raw.decode()


@settings(deadline=None)
@given(
    pack=st.sampled_from([gzip.compress, zipped]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    cut=st.none() | st.floats(0, 1),
)
def test_a_damaged_archive_is_refused_or_whole(
    folder: Path,
    read_file: ReadFile,
    pack: Callable[[bytes], bytes],
    changes: list[tuple[float, int]],
    cut: float | None,
) -> None:
    content = bytearray(pack(GOOD))
    for where, byte in changes:
        content[int(where * (len(content) - 1))] = byte
    path = folder / "damaged.zip"
    path.write_bytes(content if cut is None else content[: int(cut * len(content))])
    found = read_or_refuse(read_file, path)
    assert found is None or found.lines == records_of(GOOD)


@settings(deadline=None)
@given(content=st.binary(max_size=300))
def test_noise_is_refused(folder: Path, read_file: ReadFile, content: bytes) -> None:
    path = folder / "noise.csv"
    path.write_bytes(content)
    assert read_or_refuse(read_file, path) is None
