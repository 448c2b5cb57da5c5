"""Rejects on a real PostgreSQL: seen, exported, corrected, tried again, and never a reading twice."""

import csv
import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis
import polars as pl
import pytest
from hypothesis import strategies as st

from energy_iot.errors import InputFileError, StorageError, UnknownFormatError, UsageError
from energy_iot.ingestion import rejects as rejects_module
from energy_iot.ingestion.load_data import ingest_data
from energy_iot.ingestion.reject_list import RejectFilter, export_rejects, list_rejects
from energy_iot.ingestion.rejects import retry_rejects
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres

MakeContext = Callable[..., RunContext]
Retry = Callable[..., StepReport]
HEADER = "meter_id,timestamp,consumption_kwh"


def rows(postgres: Postgres, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    with postgres.connect() as connection:
        return connection.execute(query, parameters).fetchall()


def readings(postgres: Postgres, where: str = "true") -> list[tuple[Any, ...]]:
    return rows(
        postgres,
        "select meter_id, timestamp, electricity_consumed from raw_data.meter_readings "
        f"where {where} order by meter_id, timestamp, id",
    )


def open_lines(postgres: Postgres) -> list[tuple[Any, ...]]:
    query = (
        "select source_file, line_number, raw_text from raw_data.rejected_readings where resolved_by_file_id is null"
    )
    return rows(postgres, f"{query} order by id")


@pytest.fixture
def load(make_context: MakeContext) -> Callable[..., str]:
    """Write a file with some good lines and the given ones, and load it; gives the id of the run."""

    def load(path: Path, *lines: str, header: str = HEADER, good: str = "good,2024-01-{:02} 00:00,1") -> str:
        path.write_text("\n".join([header, *(good.format(day) for day in range(1, 31)), *lines]) + "\n")
        context = make_context(files=(path,), max_rejected_share=0.5)
        ingest_data(context)
        return context.run_id

    return load


@pytest.fixture
def retry(make_context: MakeContext) -> Retry:
    def retry(path: Path | None = None, source: str | None = None, **settings: object) -> StepReport:
        context = make_context(source=source, **settings)
        return retry_rejects(replace(context, options=replace(context.options, corrected_rejects=path)))

    return retry


def export(postgres: Postgres, path: Path, **wanted: Any) -> list[dict[str, str]]:
    export_rejects(postgres, path, RejectFilter(**wanted))
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def save(path: Path, rows: list[dict[str, str]], *, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    """As a spreadsheet saves it."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, rows[0].keys(), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(buffer.getvalue().encode(encoding))
    return path


def corrected(path: Path, rows: list[dict[str, str]], changes: dict[str, str]) -> Path:
    """The export with pieces of its texts replaced."""
    changed = []
    for row in rows:
        text = row["raw_text"]
        for old, new in changes.items():
            text = text.replace(old, new)
        changed.append(row | {"raw_text": text})
    return save(path, changed)


# --- list -------------------------------------------------------------------------------------------------------------


def test_rejects_are_counted_by_file_and_kind_of_reason(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str]
) -> None:
    first = load(tmp_path / "a.csv", "m,bad,1", "m,worse,1", "m,2024-01-01,=cmd()", "m")
    load(tmp_path / "b.csv", "n,bad,1")
    found = list_rejects(postgres)
    assert [(file.file, file.open, file.resolved) for file in found.files] == [("a.csv", 4, 0), ("b.csv", 1, 0)]
    assert found.files[0].run_id == first
    assert [(kind.reason, kind.count) for kind in found.files[0].reasons] == [
        ("timestamp ... is not a time in the format iso", 2),
        ("1 fields where the header has 3", 1),
        ("consumption_kwh ... is not a number from -1e+09 to 1e+09", 1),
    ]
    assert [(line.file, line.line_number, line.raw_text) for line in found.lines][2:] == [
        ("a.csv", 34, "m,2024-01-01,=cmd()"),
        ("a.csv", 35, "m"),
        ("b.csv", 32, "n,bad,1"),
    ]
    assert found.lines[0].reason == "timestamp 'bad' is not a time in the format iso"
    assert len(list_rejects(postgres, limit=2).lines) == 2
    assert list_rejects(postgres, RejectFilter(run_id=first)).files == found.files[:1]
    sha256 = found.files[1].sha256
    assert list_rejects(postgres, RejectFilter(file=sha256[:8])).files == found.files[1:]
    with pytest.raises(UsageError, match=r"no loaded file 'c\.csv'"):
        list_rejects(postgres, RejectFilter(file="c.csv"))


def test_resolved_rejects_are_shown_on_demand(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], retry: Retry
) -> None:
    load(tmp_path / "a.csv", "m,bad,1", "m,2024-02-30,1")
    retry(corrected(tmp_path / "fixed.csv", export(postgres, tmp_path / "out.csv"), {"bad": "2024-02-01"}))
    (file,) = list_rejects(postgres).files
    assert (file.open, file.resolved) == (1, 0)
    found = list_rejects(postgres, RejectFilter(resolved_too=True))
    assert [(file.open, file.resolved) for file in found.files] == [(1, 1)]
    assert [line.resolved_by for line in found.lines] == ["a.csv (retried rejects)", None]


def test_no_rejects(postgres: Postgres, tmp_path: Path) -> None:
    assert list_rejects(postgres).files == ()
    assert export(postgres, tmp_path / "out.csv") == []


# --- export -----------------------------------------------------------------------------------------------------------


def test_an_export_is_safe_to_open_and_whole(tmp_path: Path, postgres: Postgres, load: Callable[..., str]) -> None:
    lines = ["=cmd()", "m,x,-1", '"a""b",=1+1,2', "été;=1+1", "'quoted',2024,1", "m,2024-02-30,-5"]
    load(tmp_path / "a.csv", *lines)
    exported = export(postgres, tmp_path / "out.csv")
    assert [row["raw_text"] for row in exported] == [
        "'=cmd()", "m,x,-1", "\"a\"\"b\",'=1+1,2", "été;'=1+1", "''quoted',2024,1", "m,2024-02-30,-5",
    ]  # fmt: skip
    assert list(exported[0]) == ["reject_id", "source_file", "line_number", "reason", "raw_text"]
    assert [row["line_number"] for row in exported] == [str(number) for number in range(32, 38)]
    assert (tmp_path / "out.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert export(postgres, tmp_path / "other.csv", file="a.csv") == exported


def test_an_export_overwrites_nothing_and_leaves_no_half_file(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str]
) -> None:
    load(tmp_path / "a.csv", "m,bad,1")
    path = tmp_path / "out.csv"
    path.write_text("my corrections")
    with pytest.raises(UsageError, match="exists, and may hold corrections"):
        export_rejects(postgres, path)
    assert path.read_text() == "my corrections"
    with pytest.raises(UsageError, match="cannot be written"):
        export_rejects(postgres, tmp_path / "nowhere" / "out.csv")
    with pytest.raises(UsageError, match="no loaded file"):
        export_rejects(postgres, tmp_path / "new.csv", RejectFilter(file="b.csv"))
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["a.csv", "out.csv"]


def test_an_export_given_to_ingest_says_where_it_belongs(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], make_context: MakeContext
) -> None:
    load(tmp_path / "a.csv", "m,bad,1")
    export_rejects(postgres, tmp_path / "out.csv")
    with pytest.raises(UnknownFormatError) as refused:
        ingest_data(make_context(files=(tmp_path / "out.csv",)))
    assert "energy-iot rejects retry" in refused.value.fix


def test_an_export_to_standard_output(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    load(tmp_path / "a.csv", "m,bad,é")
    assert export_rejects(postgres, None) == 1
    assert capsys.readouterr().out.splitlines()[1].endswith('"m,bad,é"')


# --- retry ------------------------------------------------------------------------------------------------------------


def test_corrected_lines_load_and_the_others_stay_open(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], retry: Retry
) -> None:
    load(tmp_path / "a.csv", "m,bad,1.5", "m,2024-02-02 01:00,=cmd()", "m,2024-02-03,x")
    exported = export(postgres, tmp_path / "out.csv")
    path = corrected(tmp_path / "fixed.csv", exported, {"bad": "2024-02-01", "'=cmd()": "2.5", ",x": ",y"})
    report = retry(path)
    assert (report.rows_in, report.rows_out, report.skipped) == (3, 2, None)
    assert report.details["files"] == [
        {
            "file": "a.csv",
            "tried": 3,
            "loaded": 2,
            "without_consumption": 0,
            "came_otherwise": 0,
            "still_rejected": 1,
            "loaded_as": "a.csv (retried rejects)",
            "first_rejects": ["line 34: consumption_kwh 'y' is not a number from -1e+09 to 1e+09"],
        }
    ]
    assert report.warnings == (
        "a.csv: 1 of 3 rejects stay open: line 34: consumption_kwh 'y' is not a number from -1e+09 to 1e+09",
    )
    assert readings(postgres, "source_file = 'a.csv (retried rejects)'") == [
        ("m", datetime(2024, 2, 1), Decimal("1.5")),
        ("m", datetime(2024, 2, 2, 1), Decimal("2.5")),
    ]
    # the reject itself is what was received, and why that is no reading
    assert rows(
        postgres, "select raw_text, reason from raw_data.rejected_readings where resolved_by_file_id is null"
    ) == [("m,2024-02-03,x", "consumption_kwh 'x' is not a number from -1e+09 to 1e+09")]
    original, retried = rows(
        postgres,
        "select lines_read, readings_loaded, readings_rejected, source_name, interval_minutes, first_timestamp, "
        "last_timestamp, sha256, layout from raw_data.ingested_files order by file_id",
    )
    assert original[:5] == (33, 30, 3, "long_format", 1440)
    assert retried[:7] == (2, 2, 0, "long_format", 1440, datetime(2024, 2, 1), datetime(2024, 2, 2, 1))
    assert len(retried[7]) == 64
    assert retried[8]["retried_file_id"] == 1
    assert rows(
        postgres,
        "select kind, file_name, c.sha256, array_agg(meter_id || ' ' || reading_date order by reading_date) "
        "from raw_data.changes c join raw_data.changed_days using (change_id) where change_id = 2 group by 1, 2, 3",
    ) == [("load", "a.csv (retried rejects)", retried[7], ["m 2024-02-01", "m 2024-02-02"])]


def test_the_same_corrections_load_once(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], retry: Retry
) -> None:
    load(tmp_path / "a.csv", "m,bad,1.5")
    path = corrected(tmp_path / "fixed.csv", export(postgres, tmp_path / "out.csv"), {"bad": "2024-02-01"})
    retry(path)
    before = readings(postgres)
    with pytest.raises(InputFileError, match=r"fixed\.csv: 1 of its rejects were resolved before"):
        retry(path)
    path.write_text(path.read_text() + "\n\n")
    with pytest.raises(InputFileError, match="resolved before"):
        retry(path)
    assert retry().skipped == "no open rejects to try"
    assert readings(postgres) == before
    assert len(rows(postgres, "select 1 from raw_data.ingested_files")) == 2


def test_corrections_of_several_files_each_in_the_way_its_file_was_read(
    tmp_path: Path, postgres: Postgres, make_context: MakeContext, load: Callable[..., str], retry: Retry
) -> None:
    uci = tmp_path / "house.zip"
    header = "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
    header += "Sub_metering_1;Sub_metering_2;Sub_metering_3"
    with zipfile.ZipFile(uci, "w") as archive:
        archive.writestr(
            "one.txt", f"{header}\n1/2/2007;00:00:00;6;0;230;0;0;0;0\n1/2/2007;00:01:00;6o;0;230;0;1;0;0\n"
        )
        turned = header.replace("Date;Time", "Time;Date")
        archive.writestr("two.txt", f"{turned}\n00:02:00;1/2/2007;6;0;230;0;0;0;0\n00:03:00;2/2;6;0;230;0;0;0;0\n")
    ingest_data(make_context(files=(uci,), max_rejected_share=0.6))
    kaggle = "Timestamp,Electricity_Consumed,Temperature,Humidity,Wind_Speed,Avg_Past_Consumption,Anomaly_Label"
    load(
        tmp_path / "kaggle.csv", "02/31/2024 5:00,1,1,1,1,1,Normal",
        header=kaggle, good="01/{}/2024 0:00,0.5,1,1,1,1,Normal",
    )  # fmt: skip
    exported = export(postgres, tmp_path / "out.csv")
    assert [row["source_file"] for row in exported] == ["house.zip/one.txt", "house.zip/two.txt", "kaggle.csv"]
    changes = {"6o": "60", ";2/2;": ";2/2/2007;", "02/31": "03/02"}
    report = retry(
        corrected(tmp_path / "fixed.csv", exported, changes), default_meter_id="another", time_zone="Asia/Tokyo"
    )
    assert [(file["file"], file["loaded"]) for file in report.details["files"]] == [("house.zip", 2), ("kaggle.csv", 1)]
    assert rows(
        postgres,
        "select meter_id, timestamp, electricity_consumed, voltage, sub_metering_1 from raw_data.meter_readings "
        "where source_file like '%%(retried rejects)' order by timestamp",
    ) == [
        ("meter_1", datetime(2007, 2, 1, 0, 1), Decimal(1), 230.0, 0.001),
        ("meter_1", datetime(2007, 2, 2, 0, 3), Decimal("0.1"), 230.0, 0.0),
        ("meter_1", datetime(2024, 3, 2, 5), Decimal(1), None, None),
    ]


def test_rejects_are_tried_as_they_are_after_limits_changed(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], retry: Retry
) -> None:
    load(tmp_path / "a.csv", "m,1999-12-31,1", "m,1989-12-31,1", "m,bad,1")
    report = retry(earliest_timestamp=datetime(1995, 1, 1))
    assert (report.rows_in, report.rows_out) == (3, 1)
    assert readings(postgres, "meter_id = 'm'") == [("m", datetime(1999, 12, 31), Decimal(1))]
    # of an unchanged line the newest reason is the true one
    assert rows(
        postgres, "select reason from raw_data.rejected_readings where resolved_by_file_id is null order by id"
    ) == [
        ("timestamp '1989-12-31' is before 1995-01-01 00:00 UTC",),
        ("timestamp 'bad' is not a time in the format iso",),
    ]
    assert retry(earliest_timestamp=datetime(1995, 1, 1)).rows_out == 0


def test_new_null_values_of_a_mapping_count_and_nothing_else_of_it(
    tmp_path: Path, postgres: Postgres, make_context: MakeContext, retry: Retry
) -> None:
    text = (
        "description: ours\n{}timestamp: {{columns: [t], formats: ['%d/%m/%Y %H:%M']}}\nmeter: {{column: m}}\n"
        "interval_minutes: 30\nreadings: {{consumption: {{column: c, unit: {}}}}}\n"
    )
    mapping = tmp_path / "ours.yml"
    mapping.write_text(text.format("", "kW"))
    path = tmp_path / "a.csv"
    path.write_text(
        "m,t,c\n" + "".join(f"a,{day}/01/2024 0:00,1\n" for day in range(1, 29)) + "a,29/01/2024 0:00,off\n"
    )
    ingest_data(make_context(files=(path,), source=str(mapping)))
    assert retry().rows_out == 0
    mapping.write_text(text.format("null_values: ['off']\n", "Wh").replace("%d/%m", "%m/%d"))
    report = retry(source=str(mapping))
    assert report.details["files"][0]["without_consumption"] == 1
    assert readings(postgres)[-1] == ("a", datetime(2024, 1, 29), None)
    # the same file's corrected line is in kW still
    assert open_lines(postgres) == []


def test_an_unchanged_line_never_replaces_a_reading_that_came_meanwhile(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], retry: Retry
) -> None:
    load(tmp_path / "a.csv", "m,1999-12-31 00:00,1", "m,1999-12-31 12:00,1", "m,1999-12-30,")
    context_settings = {"earliest_timestamp": datetime(1995, 1, 1)}
    load(tmp_path / "b.csv", "m,1999-12-30,1")
    with postgres.connect() as connection:  # as if the limit had been changed before b.csv was loaded
        connection.execute(
            "insert into raw_data.meter_readings (meter_id, timestamp, electricity_consumed, source_file, file_id) "
            "values ('m', '1999-12-31 00:00', 7, 'b.csv', 2), ('m', '1999-12-31 12:00', null, 'b.csv', 2)"
        )
    report = retry(**context_settings)
    a = report.details["files"][0]
    assert (a["tried"], a["loaded"], a["came_otherwise"], a["still_rejected"]) == (3, 2, 1, 0)
    assert "1 of 3 rejects are resolved without loading them" in report.warnings[0]
    assert readings(postgres, "meter_id = 'm' and timestamp = '1999-12-31'") == [("m", datetime(1999, 12, 31), 7)]
    assert open_lines(postgres) == []
    # a line that a person corrected is newer than all
    load(tmp_path / "c.csv", "good,2024-01-01 00:00,5x")
    retry(corrected(tmp_path / "fixed.csv", export(postgres, tmp_path / "out.csv"), {"5x": "5"}))
    newest = "select electricity_consumed from raw_data.meter_readings where meter_id = 'good' "
    newest += "and timestamp = '2024-01-01' order by id desc limit 1"
    assert rows(postgres, newest) == [(Decimal(5),)]


def test_an_hour_that_occurs_twice_is_filled_as_the_file_has_it(
    tmp_path: Path, postgres: Postgres, make_context: MakeContext, retry: Retry
) -> None:
    """Cairo, 25 October 2024: 23:30 is at 20:30 UTC, and again at 21:30."""
    path = tmp_path / "a.csv"
    good = [f"m,2024-01-{day:02} 00:00,1" for day in range(1, 29)]
    lines = [f"{meter},2024-10-31 23:30,{value}" for meter in "pqrs" for value in (1, 2)]
    broken = {"p": (0,), "q": (1,), "r": (0, 1), "s": ()}
    for place, line in enumerate(lines):
        if place % 2 in broken[line[0]]:
            lines[place] = line + "x"
    path.write_text("\n".join([HEADER, *good, *lines]))
    ingest_data(make_context(files=(path,), max_rejected_share=0.5, time_zone="Africa/Cairo"))
    report = retry(corrected(tmp_path / "fixed.csv", export(postgres, tmp_path / "out.csv"), {"x": ""}))
    assert report.rows_out == 4
    earlier, later = datetime(2024, 10, 31, 20, 30), datetime(2024, 10, 31, 21, 30)
    assert readings(postgres, "meter_id in ('p', 'q', 'r', 's')") == [
        (meter, time, value) for meter in "pqrs" for time, value in ((earlier, 1), (later, 2))
    ]


def test_rejects_of_parquet_and_of_older_versions_say_what_to_do(
    tmp_path: Path, postgres: Postgres, make_context: MakeContext, load: Callable[..., str], retry: Retry
) -> None:
    frame = pl.DataFrame(
        {"meter_id": ["m"] * 30, "timestamp": ["2024-01-01"] * 29 + ["bad"], "consumption_kwh": [1.0] * 30}
    )
    frame.write_parquet(tmp_path / "a.parquet")
    ingest_data(make_context(files=(tmp_path / "a.parquet",)))
    load(tmp_path / "old.csv", "m,bad,1")
    with postgres.connect() as connection:
        connection.execute("update raw_data.ingested_files set layout = null where file_name = 'old.csv'")
    report = retry()
    assert report.skipped == "no open rejects to try"
    assert len(report.warnings) == 2
    assert all("energy-iot forget --file NAME" in warning for warning in report.warnings)
    exported = export(postgres, tmp_path / "out.csv")
    with pytest.raises(InputFileError, match=r"a\.parquet: its rejects cannot be tried: rows of parquet"):
        retry(corrected(tmp_path / "fixed.csv", exported, {"bad": "2024-01-02"}))
    load(tmp_path / "new.csv", "n,bad,1")
    everything = export(postgres, tmp_path / "out2.csv")
    report = retry(corrected(tmp_path / "fixed.csv", everything, {"bad": "2024-01-02"}))
    assert (report.rows_out, len(report.warnings)) == (1, 2)


def test_what_is_no_line_stays_open(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], retry: Retry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejects_module, "SHOWN_LINES", 99)
    cases = [
        ("m,bad,1", "   ", "the line is blank"),
        ("m,bad,1", "m,2024-01-01,1\nm,2024-01-02,1", "it holds a line break: one line is one reading"),
        ("m,bad,1", "m,2024-01-01", "2 fields where the header has 3"),
        ("m,bad,1", '"m,2024-01-01,1', "its quotes do not fit"),
        ("m\0,2024-01-01,1", None, r"\x00 stands for a byte that is no text"),
        ("m\0,2024-01-01,x", r"m\x00,2024-01-01,1", r"\x00 stands for a byte that is no text"),
        ("m" * 12_000 + ",2024-01-01,1", None, "only its beginning was kept: write the whole line"),
    ]
    load(tmp_path / "a.csv", *(line for line, _, _ in cases))
    exported = export(postgres, tmp_path / "out.csv")
    for row, (_, text, _) in zip(exported, cases, strict=True):
        row["raw_text"] = row["raw_text"] if text is None else text
    report = retry(save(tmp_path / "fixed.csv", exported))
    assert (report.rows_in, report.rows_out) == (len(cases), 0)
    told = report.details["files"][0]["first_rejects"]
    for number, (line, (_, _, reason)) in enumerate(zip(told, cases, strict=True), start=32):
        assert line.startswith(f"line {number}: ")
        assert reason in line
    assert len(open_lines(postgres)) == len(cases)
    assert len(rows(postgres, "select 1 from raw_data.ingested_files")) == 1


def test_corrections_as_spreadsheets_save_them(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], retry: Retry
) -> None:
    saved_as = [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-8")]
    load(tmp_path / "a.csv", *['é;"m",bad,1'] * 3)
    exported = export(postgres, tmp_path / "out.csv")
    for row, (delimiter, encoding) in zip(exported, saved_as, strict=True):
        changed = {"note": "=1+1", **row, "raw_text": f"é;m,2024-02-0{row['line_number'][-1]},1"}
        assert retry(save(tmp_path / "fixed.csv", [changed], delimiter=delimiter, encoding=encoding)).rows_out == 1
    assert readings(postgres, "meter_id <> 'good'") == [("é;m", datetime(2024, 2, day), 1) for day in (2, 3, 4)]


NO_EXPORTS = [
    (b"", "no export of rejects"),
    (b"meter_id,timestamp,consumption_kwh\nm,2024-01-01,1\n", "no export of rejects"),
    (b"reject_id,source_file,line_number,raw_text\nx,a.csv,32,m\n", "line 2: reject_id is no whole number: 'x'"),
    (b"reject_id,source_file,line_number,raw_text\n1,a.csv,-2,m\n", "line 2: line_number is no whole number"),
    (b"reject_id,source_file,line_number,raw_text\n\n1,a.csv\n", "line 3: 2 fields where the header has 4"),
    (b"reject_id,source_file,line_number,raw_text\n1,a.csv,32,\"m\n", "line 2: unexpected end of data"),
    (b"reject_id,source_file,line_number,raw_text\n1,a.csv,32,\xe9\n", "its text is not UTF-8"),
    (b"\xff\xfer\0e\0", "its text is not UTF-8"),
    (b"reject_id,source_file,line_number,raw_text\n1,a.csv,32,\0\n", "NUL"),
    (b"reject_id,source_file,line_number,raw_text\n1,a.csv,32,m\n1,a.csv,32,n\n", "reject_id 1 more than once"),
    (b"reject_id,source_file,line_number,raw_text\n1,b.csv,32,m\n", r"1 rows are no rejects here, such as 1 \(b"),
    (b"reject_id,source_file,line_number,raw_text\n99,a.csv,32,m\n", "are no rejects here"),
    (b"reject_id,source_file,line_number,raw_text\n1,a.csv,32," + b"m" * 2_000_000 + b"\n", "more than 1,048,576"),
    (b"reject_id,source_file,line_number,raw_text\n1,a.csv,32," + b"m" * 200_000 + b"\n", "field larger"),
    (None, "does not exist"),
]  # fmt: skip


def test_what_is_no_export_is_refused_and_changes_nothing(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], retry: Retry
) -> None:
    load(tmp_path / "a.csv", "m,bad,1")
    for number, (content, message) in enumerate(NO_EXPORTS):
        path = tmp_path / f"fixed_{number}.csv"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputFileError, match=message) as refused:
            retry(path)
        assert path.name in refused.value.problem
        assert refused.value.fix
    assert open_lines(postgres) == [("a.csv", 32, "m,bad,1")]


def test_all_or_nothing(
    tmp_path: Path,
    postgres: Postgres,
    load: Callable[..., str],
    retry: Retry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load(tmp_path / "a.csv", "m,bad,1")
    load(tmp_path / "b.csv", "n,bad,1e8")
    path = corrected(tmp_path / "fixed.csv", export(postgres, tmp_path / "out.csv"), {"bad": "2024-01-01"})
    with postgres.connect() as connection:
        connection.execute("alter table raw_data.meter_readings add constraint few check (electricity_consumed < 50)")
    with pytest.raises(StorageError, match="PostgreSQL refused the readings of retried rejects"):
        retry(path)
    assert len(open_lines(postgres)) == 2
    assert len(readings(postgres)) == 60
    assert len(rows(postgres, "select 1 from raw_data.changes")) == 2
    with postgres.connect() as connection:
        connection.execute("alter table raw_data.meter_readings drop constraint few")
    monkeypatch.setattr(rejects_module, "FETCHED_ROWS", 1)
    assert retry(path).rows_out == 2


def test_many_rejects_are_tried_in_pieces(
    tmp_path: Path,
    postgres: Postgres,
    make_context: MakeContext,
    retry: Retry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rejects_module, "FETCHED_ROWS", 70)
    start = datetime(1999, 1, 1)
    path = tmp_path / "a.csv"
    old = [f"m,{start + timedelta(hours=hour)},{hour}" for hour in range(1000)]
    path.write_text("\n".join([HEADER, *old, "m,2024-01-01,1", "bad"]))
    ingest_data(make_context(files=(path,), max_rejected_share=1))
    assert len(open_lines(postgres)) == 1001
    report = retry(earliest_timestamp=datetime(1990, 1, 1))
    assert (report.rows_in, report.rows_out) == (1001, 1000)
    assert readings(postgres)[:-1] == [("m", start + timedelta(hours=hour), hour) for hour in range(1000)]
    assert rows(postgres, "select count(*), count(distinct reading_date) from raw_data.changed_days") == [(43, 43)]


LINES = st.text(
    st.sampled_from("m1,;'\"=+-@\t é\u2028.") | st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=30
)


@hypothesis.settings(
    max_examples=10, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], derandomize=True
)
@hypothesis.given(lines=st.lists(LINES.filter(lambda line: line.strip()), min_size=1, max_size=60))
def test_export_and_retry_unchanged_is_retrying_as_they_are(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Postgres,
    make_context: MakeContext,
    retry: Retry,
    lines: list[str],
) -> None:
    """Whatever the lines hold, an export that nobody changed corrects nothing."""
    folder = tmp_path_factory.mktemp("lines")
    path = folder / "a.csv"
    path.write_bytes("\n".join([HEADER, *(f"m,bad{line},1" for line in lines), *lines]).encode())
    ingest_data(make_context(files=(path,), max_rejected_share=1))
    before = open_lines(postgres)
    exported = export(postgres, folder / "out.csv")
    assert len(exported) == len(before)
    if exported:
        report = retry(folder / "out.csv")
        assert report.rows_out == 0
    assert open_lines(postgres) == before
    with postgres.connect() as connection:
        connection.execute("delete from raw_data.rejected_readings; delete from raw_data.ingested_files")


def test_corrections_for_another_home(tmp_path: Path, settings: Settings, retry: Retry) -> None:
    path = tmp_path / "fixed.csv"
    path.write_text("reject_id,source_file,line_number,raw_text\n1,a.csv,2,m\n")
    with pytest.raises(InputFileError, match="they come from another database"):
        retry(path)
