"""Delimited text, as bytes come."""

import gzip
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from energy_iot.errors import InputFileError
from energy_iot.ingestion.readers import text as text_reader
from energy_iot.ingestion.readers.containers import open_parts
from energy_iot.ingestion.readers.text import read_text
from energy_iot.ingestion.source_files import inspect
from energy_iot.ingestion.sources import load_mappings

from .conftest import ReadFile

HEADER = "meter_id,timestamp,consumption_kwh"
LINES = [f"m{number % 3},2024-01-01 {number // 2:02}:{number % 2 * 30:02},{number / 10}" for number in range(40)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n \t\n", b"\xef\xbb\xbf\r\n"])
def test_any_line_end_any_chunk_same_records(tmp_path: Path, end: str, start: bytes) -> None:
    lines = LINES[:12]
    path = tmp_path / "file.csv"
    for last in (b"", end.encode()):
        path.write_bytes(start + end.join([HEADER, *lines]).encode() + last)
        first = 2 + len(start.splitlines()) - (start == b"\xef\xbb\xbf")
        ((part, layout),) = inspect(path, load_mappings(), verify=False).tables
        for chunk_bytes in (1, 29, 2**20):
            batches = list(read_text(part, layout, chunk_bytes=chunk_bytes))
            read = [batch.frame.select("line", "meter_id", "timestamp_1", "consumption") for batch in batches]
            rows = [row for frame in read for row in frame.rows()]
            assert [",".join(row[1:]) for row in rows] == lines
            assert [row[0] for row in rows] == list(range(first, first + len(lines)))
            assert [batch.raw_text(line) for batch in batches for line in batch.frame["line"]] == lines


def test_blank_lines_are_no_records_and_counted(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_text(f"{HEADER}\n\n{LINES[0]}\n  \t\n\n{LINES[1]}\nbad\n\n")
    content = read_file(path)
    assert (content.lines, content.blank, content.readings.height) == (3, 4, 2)
    assert [reject.line_number for reject in content.rejects] == [7]


def test_lines_of_tabs_are_blank_too(tmp_path: Path, read_file: ReadFile) -> None:
    mapping = load_mappings()["long_format"].model_copy(update={"delimiter": "\t"})
    path = tmp_path / "file.txt"
    path.write_text(f"{HEADER}\n{LINES[0]}\n,,\n,\n".replace(",", "\t"))
    content = read_file(path, mapping=mapping)
    assert (content.lines, content.blank, content.readings.height) == (1, 2, 1)


def test_good_quoted_and_wrong_lines_keep_their_order(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_text(
        f'{HEADER}\n"a",2024-01-01,1\nb,2024-01-01,2\n"c\nd",2024-01-01,3\n"e,f","2024-01-01","4"\ng,2024-01-01,x\n'
    )
    content = read_file(path)
    assert content.readings["meter_id"].to_list() == ["a", "b", "e,f"]
    assert [(reject.line_number, reject.raw_text) for reject in content.rejects] == [
        (4, '"c'),
        (5, 'd",2024-01-01,3'),
        (7, "g,2024-01-01,x"),
    ]


def test_columns_in_any_order_and_unknown_ones_between(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_text("note,consumption_kwh,TEMPERATURE_C,meter_id,timestamp\nhm,1,20,m,2024-01-01\n")
    content = read_file(path)
    assert content.readings.to_dicts() == [
        {"meter_id": "m", "timestamp": datetime(2024, 1, 1), "electricity_consumed": 1.0, "temperature": 20.0}
    ]


def test_a_line_too_long_is_a_reject(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_text(f"{HEADER}\n{LINES[0]}\n{'x' * (2**20 + 1)}\n{LINES[1]}\n")
    content = read_file(path)
    assert content.readings.height == 2
    assert content.rejects[0].reason == "the line has 1,048,577 bytes, more than 1,048,576"
    assert len(content.rejects[0].raw_text) < 10_100


def test_a_line_without_an_end_is_no_table(
    tmp_path: Path, read_file: ReadFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_reader, "LONGEST_LINE_BYTES", 10_000_000)
    path = tmp_path / "file.csv"
    path.write_text(f"{HEADER}\n{LINES[0]}\n{'x' * 15_000_000}")
    with pytest.raises(InputFileError, match="a line is longer than 10,000,000 bytes"):
        read_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n", "it is empty: no header"),
        (b"\xef\xbb\xbf", "it is empty: no header"),
        (b" \r\n\r\n", "it is empty: no header"),
        (HEADER.encode(), "a header and no readings"),
        (HEADER.encode() + b"\r\n \n\n", "a header and no readings"),
        (f"{HEADER}\n".encode("utf-16"), "its text is UTF-16"),
        (f"{HEADER}\n".encode("utf-16-le"), "binary: its first line holds the byte 0x00"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "unknown header"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "binary: its first line holds the byte 0x00"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), "an Excel workbook"),
        (b"x" * 2_000_000, "no header line in its first"),
        (b" \n" * 2_000_000, "no header line in its first"),
        (b"a,b,c\n1,2,3\n", r"unknown header: a,b,c"),
        (b"[1, 2]\n[3, 4]\n", "unknown header"),
        (b'"' + b"x" * 200_000 + b'"\n1\n', r"unknown header: .*characters\)"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value[:12]),
)
def test_what_is_no_table_is_said(tmp_path: Path, read_file: ReadFile, content: bytes, message: str) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=rf"file\.csv: .*{message}") as caught:
        read_file(path)
    assert caught.value.exit_code == 3
    assert len(str(caught.value)) < 1500


def test_many_short_lines_are_taken_in_pieces(
    tmp_path: Path, read_file: ReadFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.csv"
    path.write_text("\n".join([HEADER, *LINES]))
    whole = read_file(path)
    for at_once in (1, 7, 20, 39, 40, 41):
        monkeypatch.setattr(text_reader, "LINES_AT_ONCE", at_once)
        assert read_file(path).readings.equals(whole.readings)


def test_progress_adds_up_to_the_size(tmp_path: Path, read_file: ReadFile) -> None:
    path = tmp_path / "file.csv"
    path.write_text("\n".join([HEADER, *LINES]))
    content = read_file(path)
    assert content.progress == content.total_bytes == path.stat().st_size


MEASURE = """
import re, resource, sys
from datetime import datetime
from pathlib import Path
from energy_iot.ingestion.raw_tables import days_of, to_csv
from energy_iot.ingestion.parse_readings import ReadingParser
from energy_iot.ingestion.source_files import inspect
from energy_iot.ingestion.sources import load_mappings
from energy_iot.settings import Settings
parser, rows = ReadingParser(Settings(), datetime(2030, 1, 1)), 0
for batch, layout in inspect(Path(sys.argv[1]), load_mappings(), verify=False).read():
    parsed = parser.parse(batch, layout)
    rows += parsed.readings.height + len(parsed.rejects)
    if parsed.readings.height:
        to_csv(parsed.readings), days_of(parsed.readings)
if sys.platform == "darwin":
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20
else:  # Linux carries ru_maxrss over from the process that started this one
    peak_mb = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 2**10
print(rows, peak_mb)
"""


@pytest.mark.parametrize("kind", ["even", "quoted", "one long line", "tiny wrong lines"])
def test_memory_is_bounded(tmp_path: Path, kind: str) -> None:
    """Of many lines or a few absurd ones: read within 400 MB, of which the libraries take 150 MB."""
    path = tmp_path / "file.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(f"{HEADER}\n".encode())
        if kind == "one long line":
            lines = LINES[0].encode() + b"\n"
            file.write(lines * 100 + b"x" * 16_000_000 + b"\n" + lines * 100)
            expected = 201
        elif kind == "tiny wrong lines":
            expected = 900_000
            file.write(b"x\n" * expected)
        else:
            quote = '"' if kind == "quoted" else ""
            lines = "".join(
                f"{quote}meter-{number % 99:012}{quote},2024-01-01 00:00:00,0.25\n" for number in range(20_000)
            )
            copies = 50 if kind == "even" else 25
            for _ in range(copies):
                file.write(lines.encode())
            expected = 20_000 * copies
    shown = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True).stdout
    rows, megabytes = map(int, shown.split())
    assert rows == expected
    assert megabytes < 400


def test_the_part_of_a_plain_file_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text(HEADER)
    assert [(part.label, part.kind, part.packed_bytes) for part in open_parts(path)[0]] == [("file.csv", "text", None)]


def test_an_empty_field_is_missing_whether_its_line_has_awkward_quotes_or_not(
    tmp_path: Path, read_file: ReadFile
) -> None:
    path = tmp_path / "file.csv"
    line = "16/12/2006;;4.2;0.4;234.8;18.4;0.0;1.0;17.0"
    header = "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
    header += "Sub_metering_1;Sub_metering_2;Sub_metering_3"
    path.write_text("\n".join([header, line, line.replace(";;", ';"";'), line.replace("0.4", '"a"";b"')]))
    assert [reject.reason for reject in read_file(path).rejects] == ["Date Time is missing"] * 3
