"""Fields to readings in our units; what is rejected and why."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from energy_iot.ingestion.readers.batch import storable
from energy_iot.ingestion.sources import SourceMapping

from .conftest import ReadFile


def mapping(**changes: Any) -> SourceMapping:
    base: dict[str, Any] = {
        "description": "test",
        "timestamp": {"columns": ["time"]},
        "meter": {"column": "meter"},
        "readings": {"consumption": {"column": "kwh"}, "voltage": {"column": "volt"}},
    }
    return SourceMapping.model_validate(base | changes)


QUOTES = "its quotes do not fit: a quoted field begins and ends with one, and doubles those inside"


@pytest.fixture
def reasons(tmp_path: Path, read_file: ReadFile):
    def read(line: str, **settings: object) -> list[str]:
        path = tmp_path / "file.csv"
        path.write_text(f"meter,time,kwh,volt\n{line}\n", encoding="utf-8", newline="")
        content = read_file(path, mapping=mapping(), **settings)
        assert all((reject.line_number, reject.raw_text) == (2, storable(line.encode())) for reject in content.rejects)
        return [reject.reason for reject in content.rejects]

    return read


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("m,2024-01-01,1", "3 fields where the header has 4"),
        ("m,2024-01-01,1,2,", "5 fields where the header has 4"),
        (",2024-01-01,1,2", "meter is missing"),
        ("  ,2024-01-01,1,2", "meter is missing"),
        ("m,,1,2", "time is missing"),
        ("m, ,1,2", "time is missing"),
        ("m,soon,1,2", "time 'soon' is not a time in the format iso"),
        ("m,1999-12-31 23:59:59,1,2", "time '1999-12-31 23:59:59' is before 2000-01-01 00:00 UTC"),
        ("m,1900-01-01,1,2", "time '1900-01-01' is before 2000-01-01 00:00 UTC"),
        ("m,2030-01-02 00:00:01,1,2", "time '2030-01-02 00:00:01' is in the future, after 2030-01-02 00:00 UTC"),
        ("m,2100-01-01,1,2", "time '2100-01-01' is in the future, after 2030-01-02 00:00 UTC"),
        ("m,2024-01-01,abc,2", "kwh 'abc' is not a number from -1e+09 to 1e+09"),
        ("m,2024-01-01,NaN,2", "kwh 'NaN' is not a number from -1e+09 to 1e+09"),
        ("m,2024-01-01,-inf,2", "kwh '-inf' is not a number from -1e+09 to 1e+09"),
        ("m,2024-01-01,1e308,2", "kwh '1e308' is not a number from -1e+09 to 1e+09"),
        ("m,2024-01-01,1e999,2", "kwh '1e999' is not a number from -1e+09 to 1e+09"),
        ("m,2024-01-01,1 000,2", "kwh '1 000' is not a number from -1e+09 to 1e+09"),
        ("m,2024-01-01,1,=cmd()", "volt '=cmd()' is not a number from -1e+09 to 1e+09"),
        (f"{'m' * 201},2024-01-01,1,2", f"meter '{'m' * 60}...' (201 characters) is too long"),
        ('m,2024-01-01,"1,2', QUOTES),
        ('m,"2024-01-01"x,1,2', QUOTES),
        ('m",2024-01-01,1,2', QUOTES),
        ('"m"",2024-01-01,1,2', QUOTES),
        ('"' + "m" * 200_000 + '""",2024-01-01,1,2', "its quotes do not fit: field larger than field limit (131072)"),
    ],
)
def test_a_rejected_line_says_why(reasons: Any, line: str, reason: str) -> None:
    assert reasons(line) == [reason]


@pytest.mark.parametrize(
    "line",
    ["m,2024-01-01,1,2", "m,2024-01-01,,", "m,2024-01-01, 1.5 ,-2e3", '"m","2024-01-01","1","2"', "m,2024-01-01,-1,.5",
     "m,2000-01-01,1,1", "m,2030-01-02,1,1", '"m, the ""big"" one",2024-01-01,1,2', "m,2024-01-01,+1,1E-400"],
)  # fmt: skip
def test_a_good_line_is_not_rejected(reasons: Any, line: str) -> None:
    assert reasons(line) == []


def test_a_skipped_local_time_is_rejected(reasons: Any) -> None:
    assert reasons("m,2024-03-31 02:30,1,2", time_zone="Europe/Paris") == [
        "time '2024-03-31 02:30' does not exist in Europe/Paris: the clock skips it"
    ]


def test_the_raw_text_is_kept_whole_and_storable(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(b"meter,time,kwh,volt\r\nm\0,2024-01-01,1,2\r\nm\xe9,2024-01-01,1,2\rm," + b"x" * 20_000 + b",1,2")
    content = read_file(path, mapping=mapping())
    found = [(reject.line_number, reject.raw_text[:24], reject.reason[:45]) for reject in content.rejects]
    assert found == [
        (2, "m\\x00,2024-01-01,1,2", "the line holds a NUL byte at position 2"),
        (3, "m\\xe9,2024-01-01,1,2", "the line is not utf-8: byte 0xe9 at position "),
        (4, "m," + "x" * 22, f"time '{'x' * 39}"),
    ]
    assert content.rejects[2].raw_text.endswith("... (cut: 20,006 bytes in all)")
    assert len(content.rejects[2].raw_text) < 10_050


def test_a_missing_value_is_no_reject(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_text("meter,time,kwh,volt\nm,2024-01-01,-9999,?\nm,2024-01-02, ? ,-9999.0\nm,2024-01-03,,nan\n")
    content = read_file(path, mapping=mapping(null_values=["?", "-9999", "nan"]))
    assert content.rejects == []
    assert content.readings["electricity_consumed"].to_list() == [None, None, None]
    assert content.readings["voltage"].to_list() == [None, -9999.0, None]


def test_decimal_commas(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_text("meter;time;kwh;volt\nm;2024-01-01;0,25; 230,5 \nm;2024-01-02;1.000,5;1\nm;2024-01-03;1.000;1\n")
    content = read_file(path, mapping=mapping(decimal_comma=True, delimiter=";"))
    assert content.rows == [("m", datetime(2024, 1, 1), 0.25, 230.5)]
    assert [reject.line_number for reject in content.rejects] == [3, 4]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8"])
def test_encodings(tmp_path: Path, read_file: ReadFile, encoding: str) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes("meter,time,kwh,volt\nCotonou-été,2024-01-01,1,2\n".encode(encoding))
    assert read_file(path, mapping=mapping(encoding=encoding)).readings["meter_id"].to_list() == ["Cotonou-été"]


def test_a_byte_that_the_encoding_does_not_know_rejects_its_line_only(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(b"meter,time,kwh,volt\n\xe9,2024-01-01,1,2\n\x81,2024-01-01,1,2\n")
    content = read_file(path, mapping=mapping(encoding="cp1252"))
    assert content.readings["meter_id"].to_list() == ["é"]
    assert [reject.reason for reject in content.rejects] == ["the line is not cp1252: byte 0x81 at position 1"]


def test_the_end_of_an_interval_becomes_its_start(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_text("meter,time,kwh,volt\nm,2024-01-01 00:15,1,2\nm,2024-01-01 00:30,1,2\n")
    content = read_file(path, mapping=mapping(timestamp={"columns": ["time"], "edge": "end"}))
    assert content.interval_minutes == 15
    assert content.readings["timestamp"].to_list() == [datetime(2024, 1, 1), datetime(2024, 1, 1, 0, 15)]


def test_power_becomes_energy_by_the_interval_found(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_text("meter,time,kwh,volt\na,2024-01-01 00:00,6,2\nb,2024-01-01 00:01,1,2\na,2024-01-01 00:10,3,2\n")
    content = read_file(path, mapping=mapping(readings={"consumption": {"column": "kwh", "unit": "kW"}}))
    assert content.interval_minutes == 10
    assert content.readings["electricity_consumed"].to_list() == [1.0, 1 / 6, 0.5]


def test_without_any_distance_the_setting_is_the_interval(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_text("meter,time,kwh,volt\nm,2024-01-01,1,2\n")
    assert read_file(path, mapping=mapping(), default_interval_minutes=15).interval_minutes == 15
    assert read_file(path, mapping=mapping(interval_minutes=5)).interval_minutes == 5


def test_the_default_meter(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_text("time,kwh\n2024-01-01,1\n")
    assert read_file(path, mapping=mapping(meter={})).readings["meter_id"].to_list() == ["meter_1"]
    named = mapping(meter={"default_id": "transformer 7"})
    assert read_file(path, mapping=named).readings["meter_id"].to_list() == ["transformer 7"]
