"""gzip, zip and parquet: whole, damaged, and unlike what they are called."""

import gzip
import io
import os
import zipfile
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from energy_iot.errors import InputFileError
from energy_iot.ingestion.readers import containers
from energy_iot.ingestion.source_files import expand, fingerprint, inspect, refuse_changed
from energy_iot.ingestion.sources import load_mappings

from .conftest import ReadFile

CSV = b"meter_id,timestamp,consumption_kwh\n" + b"".join(
    b"m%d,2024-01-01 %02d:00,%d.5\n" % (number % 7, number % 24, number % 5) for number in range(500)
)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["file.csv", "file.csv.gz", "file.zip", "file"])
@pytest.mark.parametrize(
    "content",
    [CSV, gzip.compress(CSV), gzip.compress(CSV[:999]) + gzip.compress(CSV[999:]), zipped({"a/b.CSV": CSV})],
    ids=["plain", "gzip", "gzip of two", "zip"],
)
def test_a_file_is_what_its_bytes_say(tmp_path: Path, read_file: ReadFile, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    found = read_file(path)
    assert (found.lines, found.readings.height) == (500, 500)
    assert found.progress == found.total_bytes


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_methods(tmp_path: Path, read_file: ReadFile, method: int) -> None:
    path = tmp_path / "file.zip"
    path.write_bytes(zipped({"file.txt": CSV}, method))
    assert read_file(path).readings.height == 500


def test_members_of_a_zip_are_one_file_with_their_own_headers_and_lines(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.zip"
    turned = b"consumption_kwh,timestamp,meter_id\n1,2024-01-01,a\nx,2024-01-01,b\n"
    members = {"1.csv": CSV + b"bad\n", "2.csv": turned, "__MACOSX/._1.csv": b"\0", "README.txt": b"About\nall this\n"}
    path.write_bytes(zipped(members))
    content = read_file(path)
    assert (content.lines, content.readings.height) == (503, 501)
    assert content.readings["meter_id"][500] == "a"
    assert [(reject.source_file, reject.line_number) for reject in content.rejects] == [
        ("file.zip/1.csv", 502),
        ("file.zip/2.csv", 3),
    ]
    warnings = inspect(path, load_mappings(), verify=True).warnings
    assert warnings == ("file.zip/README.txt: ignored, file.zip/README.txt: unknown header: About",)


def encrypted_zip() -> bytes:
    content = bytearray(zipped({"file.csv": CSV}))
    content[6] |= 1  # the flag in the member's own header, and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped({}), "holds no .csv or .txt file, but nothing"),
        (zipped({"a.pdf": b"x", "b.exe": b"y"}), "holds no .csv or .txt file, but a.pdf, b.exe"),
        (zipped({"[Content_Types].xml": b"x", "xl/a.xml": b"y"}), "an Office document"),
        (zipped({"a.csv": b""}), r"empty"),
        (zipped({"a.csv": CSV, "b.csv": b"when,kwh\n"}) [:-30], "truncated or damaged"),
        (zipped({"a.csv": CSV})[: len(zipped({"a.csv": CSV})) // 2], "truncated or damaged"),
        (encrypted_zip(), "file.csv is encrypted"),
        (gzip.compress(CSV)[:-9], "truncated or damaged"),
        (gzip.compress(CSV)[:-8] + bytes(8), "truncated or damaged"),
        (gzip.compress(CSV, mtime=0)[:5], "truncated or damaged"),
        (gzip.compress(b"", mtime=0), "empty"),
        (gzip.compress(CSV) + b"garbage", "truncated or damaged"),
        (b"PAR1" + bytes(100), "truncated or damaged"),
        (b"PAR1", "truncated or damaged"),
    ],
)  # fmt: skip
def test_damage_is_found_before_loading(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "odd.bin"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=message) as caught:
        inspect(path, load_mappings(), verify=True)
    assert "odd.bin" in str(caught.value)


def test_a_wrong_checksum_in_a_zip_is_found(tmp_path: Path) -> None:
    content = bytearray(zipped({"file.csv": CSV}, zipfile.ZIP_STORED))
    content[content.index(b"m3,")] ^= 1
    path = tmp_path / "file.zip"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match="CRC"):
        inspect(path, load_mappings(), verify=True)


def test_an_archive_of_two_sources_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.zip"
    kaggle = b"Timestamp,Electricity_Consumed,Avg_Past_Consumption,Anomaly_Label\n2024-01-01,1,1,Normal\n"
    path.write_bytes(zipped({"1.csv": CSV, "2.csv": kaggle}))
    with pytest.raises(InputFileError, match="mixes sources"):
        inspect(path, load_mappings(), verify=True)


# --- parquet ----------------------------------------------------------------------------------------------------------


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    "stamps",
    [
        pa.array([datetime(2024, 1, 1), datetime(2024, 1, 2)], pa.timestamp("us")),
        pa.array([datetime(2024, 1, 1), datetime(2024, 1, 2)], pa.timestamp("s")),
        pa.array([datetime(2024, 1, 1), datetime(2024, 1, 2)], pa.timestamp("ns")),
        pa.array(
            [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)], pa.timestamp("ms", "Africa/Lagos")
        ),
        pa.array([date(2024, 1, 1), date(2024, 1, 2)]),
        pa.array(["2024-01-01", "2024-01-02T00:00Z"]),
        pa.array(["2024-01-01", "2024-01-02"]).dictionary_encode(),
    ],
    ids=lambda array: str(array.type),
)
def test_parquet_times(tmp_path: Path, read_file: ReadFile, stamps: Any) -> None:
    path = write_parquet(
        tmp_path / "f.parquet", {"timestamp": stamps, "meter_id": ["a", "a"], "consumption_kwh": [1.5, 2]}
    )
    content = read_file(path)
    assert content.rows == [("a", datetime(2024, 1, 1), 1.5), ("a", datetime(2024, 1, 2), 2.0)]
    assert content.interval_minutes == 1440
    assert content.progress == content.total_bytes


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, None], pa.int16()),
        pa.array([1, None], pa.float32()),
        pa.array([Decimal("1.00"), None]),
        pa.array(["1", None]),
        pa.array(["1", ""]),
    ],
    ids=lambda array: str(array.type),
)
def test_parquet_numbers(tmp_path: Path, read_file: ReadFile, values: Any) -> None:
    stamps = [datetime(2024, 1, 1), datetime(2024, 1, 2)]
    path = write_parquet(tmp_path / "f.parquet", {"timestamp": stamps, "meter_id": [7, 7], "consumption_kwh": values})
    assert read_file(path).rows == [("7", stamps[0], 1.0), ("7", stamps[1], None)]


def test_parquet_rejects(tmp_path: Path, read_file: ReadFile) -> None:
    path = write_parquet(
        tmp_path / "f.parquet",
        {
            "meter_id": ["a", "b", None, "c\0", "d"],
            "timestamp": [datetime(2024, 1, 1), None, *[datetime(2024, 1, 1)] * 3],
            "consumption_kwh": [float("nan"), 1, 1, 1, float("inf")],
        },
    )
    content = read_file(path)
    assert [(reject.line_number, reject.reason) for reject in content.rejects] == [
        (1, "consumption_kwh 'NaN' is not a number from -1e+09 to 1e+09"),
        (2, "timestamp is missing"),
        (3, "meter_id is missing"),
        (4, "meter_id 'c\\x00' holds a NUL"),
        (5, "consumption_kwh 'inf' is not a number from -1e+09 to 1e+09"),
    ]
    assert content.rejects[3].raw_text == "2024-01-01 00:00:00,c\\x00,1.0"


def test_parquet_of_odd_shape_is_refused(tmp_path: Path, read_file: ReadFile) -> None:
    plain = {"timestamp": [datetime(2024, 1, 1)], "meter_id": ["a"]}
    path = write_parquet(tmp_path / "list.parquet", plain | {"consumption_kwh": [[1.0]]})
    with pytest.raises(InputFileError, match="consumption_kwh is list"):
        read_file(path)
    with pytest.raises(InputFileError, match="unknown header: timestamp,meter_id"):
        read_file(write_parquet(tmp_path / "short.parquet", plain))
    empty = {name: pa.array([], pa.string()) for name in ("timestamp", "meter_id", "consumption_kwh")}
    with pytest.raises(InputFileError, match="no readings"):
        read_file(write_parquet(tmp_path / "empty.parquet", empty))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.timestamp("us"), 2**62),
        (pa.timestamp("ms", "UTC"), -(2**60)),
        (pa.timestamp("s"), 10**12),
        (pa.date32(), 2**30),
    ],
    ids=str,
)
def test_parquet_times_beyond_any_calendar_are_rejects(
    tmp_path: Path, read_file: ReadFile, kind: Any, value: int
) -> None:
    stamps = pa.array([value, 20_000], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
    columns = {"meter_id": ["a", "b"], "consumption_kwh": [1.0, 2.0], "timestamp": stamps}
    content = read_file(write_parquet(tmp_path / "f.parquet", columns), earliest_timestamp=datetime(1970, 1, 1))
    (reject,) = content.rejects
    assert "is in the future" in reject.reason if value > 0 else "is before" in reject.reason
    assert content.readings["meter_id"].to_list() == ["b"]


def test_altered_parquet_is_refused_or_adds_up(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "altered.parquet"
    columns = {"meter_id": ["a"] * 50, "consumption_kwh": [0.5] * 50, "timestamp": [datetime(2024, 1, 1)] * 50}
    good = write_parquet(path, columns).read_bytes()
    outcomes = set()
    for seed in range(150):
        random = Random(seed)
        altered = bytearray(good)
        for _ in range(random.randint(1, 3)):
            altered[random.randrange(4, len(good))] = random.randrange(256)
        path.write_bytes(altered)
        try:
            outcomes.add(read_file(path).lines)
        except InputFileError:
            outcomes.add(0)
    assert outcomes == {0, 50}


def test_parquet_in_batches(tmp_path: Path, read_file: ReadFile) -> None:
    count = 150_000
    frame = pl.DataFrame({"meter_id": ["m"] * count, "consumption_kwh": range(count)}).with_columns(
        timestamp=datetime(2024, 1, 1) + pl.duration(minutes=pl.int_range(count))
    )
    frame.write_parquet(tmp_path / "f.parquet")
    content = read_file(tmp_path / "f.parquet")
    assert content.readings["electricity_consumed"].to_list() == list(range(count))


# --- which files ------------------------------------------------------------------------------------------------------


def test_folders_give_their_known_files_in_order_once(tmp_path: Path) -> None:
    for name in ("b.csv", "a.TXT", "c.gz", "d.zip", "e.parquet", "f.pdf", ".g.csv", "sub/h.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(CSV)
    names = ["a.TXT", "b.csv", "c.gz", "d.zip", "e.parquet"]
    assert [path.name for path in expand((tmp_path,))] == names
    assert [path.name for path in expand((tmp_path / "c.gz", tmp_path, tmp_path / "f.pdf"))] == [
        "c.gz", "a.TXT", "b.csv", "d.zip", "e.parquet", "f.pdf",
    ]  # fmt: skip


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="does not exist"):
        expand((tmp_path / "absent.csv",))
    with pytest.raises(InputFileError, match=r"holds no file that ends with \.csv"):
        expand((tmp_path,))
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputFileError, match="no regular file"):
        expand((tmp_path / "pipe.csv",))
    with pytest.raises(InputFileError):
        expand((tmp_path / ("x" * 300),))


def test_a_file_that_grows_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(CSV)
    before = fingerprint(path)
    refuse_changed(path, before)
    path.write_bytes(CSV + b"m,2024-01-01,1\n")
    with pytest.raises(InputFileError, match="changed while it was read"):
        refuse_changed(path, before)
    path.unlink()
    with pytest.raises(InputFileError):
        refuse_changed(path, before)


def test_times_of_day_join_dates(tmp_path: Path, read_file: ReadFile) -> None:
    mapping = load_mappings()["uci_household_power"]
    columns: dict[str, Any] = {name: [1.0] for name in mapping.required_columns}
    columns |= {"Date": ["16/12/2006"], "Time": pa.array([time(17, 24)], pa.time32("s"))}
    content = read_file(write_parquet(tmp_path / "f.parquet", columns), mapping=mapping)
    assert content.readings["timestamp"].to_list() == [datetime(2006, 12, 16, 17, 24)]


def test_members_that_are_no_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file.zip"
    others = {f"{number}.dat": b"x" for number in range(7)}
    path.write_bytes(zipped({"1.csv": CSV, "__MACOSX/._1.csv": b"", **others}))
    assert inspect(path, load_mappings(), verify=True).warnings == (
        "file.zip: ignored, neither .csv nor .txt: 0.dat, 1.dat, 2.dat, 3.dat, 4.dat and 2 more",
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_told_apart(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.zip"
    turned = b"consumption_kwh,timestamp,meter_id\n1,2024-01-01,a\nx,2024-01-01,b\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.csv", CSV + b"bad\n")
        archive.writestr("1.csv", turned)
    found = read_file(path)
    assert found.readings.height == 501
    assert [(reject.source_file, reject.line_number) for reject in found.rejects] == [
        ("file.zip/1.csv", 502),
        ("file.zip/1.csv (2)", 3),
    ]


@pytest.mark.parametrize("name", [b"\xff\xfe.csv", b"line\nbreak.csv", b"\x1b[31m.csv"])
def test_names_that_no_terminal_should_get_are_escaped(tmp_path: Path, read_file: ReadFile, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(CSV + b"bad\n")
    (reject,) = read_file(path).rejects
    assert reject.source_file.isprintable()
    assert reject.source_file.encode()
    path.write_bytes(b"")
    with pytest.raises(InputFileError) as refused:
        read_file(path)
    assert refused.value.problem.isprintable()


@pytest.mark.parametrize("pack", ["gzip", "zip"])
@pytest.mark.parametrize(
    "filling", [b"m,2024-01-01,1\n", b"\n", b"\0", b"x"], ids=["lines", "blank", "zeros", "one line"]
)
def test_a_bomb_is_refused_before_it_fills_anything(
    tmp_path: Path, read_file: ReadFile, monkeypatch: pytest.MonkeyPatch, pack: str, filling: bytes
) -> None:
    monkeypatch.setattr(containers, "SMALL_BYTES", 2**21)
    content = b"meter_id,timestamp,consumption_kwh\n" + filling * (2**25 // len(filling))
    packed = gzip.compress(content) if pack == "gzip" else zipped({"file.csv": content})
    assert len(content) / len(packed) > 250
    monkeypatch.setattr(containers, "MOST_EXPANSION", 100)
    path = tmp_path / "bomb"
    path.write_bytes(packed)
    with pytest.raises(InputFileError, match=r"unpacks to more than 100 times its size|longer than|binary"):
        read_file(path)


def test_a_gigabyte_of_blank_lines_takes_no_minutes(tmp_path: Path, read_file: ReadFile) -> None:
    blank = 2**24
    path = tmp_path / "file.csv"
    path.write_bytes(CSV + b"\n" * blank)
    started = monotonic()
    found = read_file(path)
    assert (found.lines, found.blank) == (500, blank)
    assert monotonic() - started < 10, "one by one, this sixtieth of a gigabyte takes longer"
