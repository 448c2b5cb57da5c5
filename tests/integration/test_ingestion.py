"""check_source and ingest_data on a real PostgreSQL."""

import gzip
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from energy_iot.errors import InputFileError, StorageError, UnknownFormatError
from energy_iot.ingestion import load_data
from energy_iot.ingestion.file_layout import FileLayout
from energy_iot.ingestion.forget import forget
from energy_iot.ingestion.load_data import check_source, ingest_data
from energy_iot.ingestion.readers import text as text_reader
from energy_iot.ingestion.sources import load_mappings
from energy_iot.pipeline import RunContext, RunOptions, StepReport
from energy_iot.storage.postgres import Postgres

MakeContext = Callable[..., RunContext]
HEADER = "meter_id,timestamp,consumption_kwh"


def table(postgres: Postgres, query: str) -> list[tuple[Any, ...]]:
    with postgres.connect() as connection:
        return connection.execute(query).fetchall()


def counts(postgres: Postgres) -> tuple[int, int, int]:
    return tuple(
        table(postgres, f"select count(*) from raw_data.{name}")[0][0]
        for name in ("ingested_files", "meter_readings", "rejected_readings")
    )


def write(path: Path, count: int, meter: str = "m", extra: str = "") -> Path:
    lines = [
        f"{meter},2024-01-{1 + number // 48:02} {number // 2 % 24:02}:{number % 2 * 30:02},{number / 8}"
        for number in range(count)
    ]
    path.write_text("\n".join([HEADER, *lines]) + "\n" + extra)
    return path


def the_file(report: StepReport) -> dict[str, Any]:
    (only,) = report.details["files"]
    return dict(only)


KAGGLE = ["Timestamp,Electricity_Consumed,Temperature,Humidity,Wind_Speed,Avg_Past_Consumption,Anomaly_Label"]


@pytest.fixture
def kaggle_twins(tmp_path: Path) -> tuple[Path, Path]:
    """The same readings as published, and as a spreadsheet saves them."""
    published, saved = list(KAGGLE), list(KAGGLE)
    for number in range(900):
        day, slot = divmod(number, 48)
        label = "Abnormal" if number == 7 else "Normal"
        values = f"0.{number + 457785692},0.469524457,0.396368359,0.4454406,0.692057211,{label}"
        published.append(f"2024-01-{day + 1:02} {slot // 2:02}:{slot % 2 * 30:02}:00,{values}")
        saved.append(f"01/{day + 1:02}/2024 {slot // 2}:{slot % 2 * 30:02},{values}")
    (tmp_path / "published.csv").write_text("\n".join(published) + "\n")
    (tmp_path / "saved.csv").write_bytes("\r\n".join(saved).encode() + b"\r\n")
    return tmp_path / "published.csv", tmp_path / "saved.csv"


def test_spreadsheet_dates_give_the_same_readings(
    kaggle_twins: tuple[Path, Path], make_context: MakeContext, postgres: Postgres
) -> None:
    report = ingest_data(make_context(files=kaggle_twins))
    assert (report.rows_in, report.rows_out, report.warnings) == (1800, 1800, ())
    columns = (
        "meter_id, timestamp, electricity_consumed, temperature, humidity, wind_speed, avg_past_consumption, "
        "anomaly_label"
    )
    published, saved = (
        table(postgres, f"select {columns} from raw_data.meter_readings where source_file = '{path.name}' order by id")
        for path in kaggle_twins
    )
    assert published == saved
    assert published[7] == (
        "meter_1", datetime(2024, 1, 1, 3, 30), Decimal("0.457785699"), 0.469524457, 0.396368359, 0.4454406,
        0.692057211, "Abnormal",
    )  # fmt: skip


def test_day_first_dates_are_refused_not_misread(tmp_path: Path, make_context: MakeContext, postgres: Postgres) -> None:
    path = tmp_path / "french.csv"
    path.write_text("\n".join(KAGGLE + [f"{day:02}/01/2024 0:00,1,1,1,1,1,Normal" for day in range(1, 32)]))
    with pytest.raises(
        InputFileError, match=r"19 of 31 lines cannot be read .*\n  line 14: Timestamp '13/01/2024 0:00'"
    ):
        ingest_data(make_context(files=(path,)))
    assert counts(postgres) == (0, 0, 0)


def test_uci_units_and_missing_minutes(tmp_path: Path, make_context: MakeContext, postgres: Postgres) -> None:
    path = tmp_path / "house.zip"
    lines = [
        "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
        "Sub_metering_1;Sub_metering_2;Sub_metering_3",
        "16/12/2006;17:24:00;4.216;0.418;234.840;18.400;0.000;1.000;17.000",
        "16/12/2006;17:25:00;?;?;?;?;?;?;",
        "1/2/2007;0:26:00;6;0.498;233.290;23.000;1.000;2.000;17.500",
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("household.txt", "\r\n".join(lines) + "\r\n")
    report = ingest_data(make_context(files=(path,)))
    assert the_file(report) == {
        "file": "house.zip",
        "source": "uci_household_power",
        "status": "loaded",
        "lines": 3,
        "loaded": 3,
        "without_consumption": 1,
        "rejected": 0,
        "late": 0,
        "blank": 0,
        "interval_minutes": 1,
        "first_timestamp": "2006-12-16T17:24:00",
        "last_timestamp": "2007-02-01T00:26:00",
        "first_rejects": [],
    }
    assert report.warnings == ("house.zip: 1 of 3 readings have no consumption: kept in raw_data, counted as missing",)
    assert table(
        postgres,
        "select timestamp, electricity_consumed, voltage, sub_metering_1, sub_metering_2, sub_metering_3 "
        "from raw_data.meter_readings order by id",
    ) == [
        (datetime(2006, 12, 16, 17, 24), Decimal("0.07026666666666667"), 234.84, 0.0, 0.001, 0.017),
        (datetime(2006, 12, 16, 17, 25), None, None, None, None, None),
        (datetime(2007, 2, 1, 0, 26), Decimal("0.1"), 233.29, 0.001, 0.002, 0.0175),
    ]  # fmt: skip


def test_check_tells_and_writes_nothing(tmp_path: Path, make_context: MakeContext, postgres: Postgres) -> None:
    new, old = write(tmp_path / "new.csv", 10), write(tmp_path / "old.csv", 11)
    ingest_data(make_context(files=(old,)))
    before = counts(postgres)
    report = check_source(make_context(files=(new, old)))
    assert [(file["file"], file["source"], file["status"]) for file in report.details["files"]] == [
        ("new.csv", "long_format", "new"),
        ("old.csv", "long_format", "already loaded"),
    ]
    assert report.skipped is None
    assert check_source(make_context(files=(old,))).skipped == "nothing new: old.csv was loaded before"
    assert counts(postgres) == before


@pytest.mark.parametrize("step", [check_source, ingest_data])
def test_no_files_is_nothing_to_do(make_context: MakeContext, step: Callable[[RunContext], StepReport]) -> None:
    assert step(make_context()).skipped == "no files given"


def test_the_same_content_is_loaded_once_under_any_name(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    first, twin = write(tmp_path / "a.csv", 10), write(tmp_path / "b.csv", 10)
    report = ingest_data(make_context(files=(first, twin, first)))
    assert [(file["file"], file["status"]) for file in report.details["files"]] == [
        ("a.csv", "loaded"),
        ("b.csv", "already loaded"),
    ]
    again = ingest_data(make_context(files=(tmp_path,)))
    assert again.skipped == "nothing new: a.csv, b.csv were loaded before"
    assert (again.rows_in, again.rows_out) == (0, 0)
    assert counts(postgres) == (1, 10, 0)


def test_readings_that_come_a_day_after_later_ones_are_late(tmp_path: Path, make_context: MakeContext) -> None:
    """Other files of the same day are not, and of the first file nothing is."""

    def late(name: str, *instants: str) -> int:
        file = tmp_path / name
        file.write_text("\n".join([HEADER, *(f"{name},{instant},1" for instant in instants)]) + "\n")
        report = ingest_data(make_context(files=(file,)))
        assert report.details["late"] == the_file(report)["late"]
        return int(report.details["late"])

    assert late("first.csv", "2026-01-01 00:00", "2026-01-10 12:00") == 0
    assert late("second.csv", "2026-01-09 11:59", "2026-01-09 12:00", "2026-01-10 12:00") == 1
    assert late("third.csv", "2026-01-10 00:00", "2026-01-11 00:00") == 0
    assert late("corrections.csv", "2026-01-01 00:00", "2026-01-02 00:00", "2026-01-11 00:00") == 2


def test_rejects_keep_file_line_text_and_reason(tmp_path: Path, make_context: MakeContext, postgres: Postgres) -> None:
    path = write(tmp_path / "some.csv", 100, extra='m,bad,1\n"m,2024-01-01,1\nm,"2024-01-01",=cmd()\n\n')
    report = ingest_data(make_context(files=(path,)))
    rejects = table(
        postgres, "select source_file, line_number, raw_text, reason from raw_data.rejected_readings order by id"
    )
    assert [(file, line, raw) for file, line, raw, _ in rejects] == [
        ("some.csv", 102, "m,bad,1"),
        ("some.csv", 103, '"m,2024-01-01,1'),
        ("some.csv", 104, 'm,"2024-01-01",=cmd()'),
    ]
    assert rejects[0][3] == "timestamp 'bad' is not a time in the format iso"
    assert report.details["rejected"] == 3
    assert the_file(report)["blank"] == 1
    assert report.warnings[0].startswith(
        "some.csv: 3 of 103 lines rejected: line 102: timestamp 'bad' is not a time in the format iso; line 103:"
    )
    assert counts(postgres) == (1, 100, 3)
    (row,) = table(
        postgres,
        "select f.lines_read, f.readings_loaded, f.readings_rejected, f.interval_minutes, f.size_bytes, f.run_id, "
        "f.source_name, min(r.ingested_at) = f.ingested_at and max(r.ingested_at) = f.ingested_at, "
        "min(r.timestamp) = f.first_timestamp and max(r.timestamp) = f.last_timestamp, bool_and(r.file_id = f.file_id) "
        "from raw_data.ingested_files f, raw_data.meter_readings r group by f.file_id",
    )
    run_id = table(postgres, "select run_id from quality.pipeline_runs")[0][0]
    assert row == (103, 100, 3, 30, path.stat().st_size, run_id, "long_format", True, True, True)


def test_too_many_rejects_refuse_the_file_whole(tmp_path: Path, make_context: MakeContext, postgres: Postgres) -> None:
    path = write(tmp_path / "some.csv", 94, extra="bad\n" * 6)
    with pytest.raises(InputFileError, match=r"6 of 100 lines cannot be read \(6.0%, allowed are 5.0%\)") as caught:
        ingest_data(make_context(files=(path,)))
    assert "line 96: 1 fields where the header has 3" in caught.value.problem
    assert counts(postgres) == (0, 0, 0)
    report = ingest_data(make_context(files=(path,), max_rejected_share=0.06))
    assert (report.rows_in, report.rows_out, report.details["rejected"]) == (100, 94, 6)


def test_a_bad_header_stops_the_run_before_anything_is_loaded(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    good, bad = write(tmp_path / "a.csv", 10), tmp_path / "b.csv"
    bad.write_text("a,b\n1,2\n")
    for step in (check_source, ingest_data):
        with pytest.raises(InputFileError, match=r"b\.csv: unknown header"):
            step(make_context(files=(good, bad)))
    assert counts(postgres) == (0, 0, 0)


def test_a_failure_among_several_files_says_which_were_loaded(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    files = (write(tmp_path / "a.csv", 10), write(tmp_path / "b.csv", 3, extra="bad\n"), write(tmp_path / "c.csv", 11))
    with pytest.raises(InputFileError, match=r"loaded: a\.csv; not loaded: b\.csv, c\.csv"):
        ingest_data(make_context(files=files))
    assert counts(postgres) == (1, 10, 0)
    write(tmp_path / "b.csv", 12)
    assert ingest_data(make_context(files=files)).rows_out == 23


def test_a_file_cut_in_the_middle_leaves_nothing(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_reader.read_text, "__kwdefaults__", {"chunk_bytes": 20_000})
    path = tmp_path / "cut.csv.gz"
    whole = write(tmp_path / "whole.csv", 10, extra="m,2024-01-01,1\n" * 20_000).read_bytes()
    path.write_bytes(gzip.compress(whole, compresslevel=0)[:-2000])
    copied: list[str] = []
    copy = load_data.copy_csv
    monkeypatch.setattr(load_data, "copy_csv", lambda *arguments: (copied.append(arguments[1]), copy(*arguments)))
    with pytest.raises(InputFileError, match="truncated or damaged"):
        ingest_data(make_context(files=(path,)))
    assert len(copied) > 5, "the damage was met before anything was sent, and the test shows nothing"
    assert counts(postgres) == (0, 0, 0)
    with pytest.raises(InputFileError, match="truncated or damaged"):
        check_source(make_context(files=(path,)))


def test_many_chunks_keep_order_and_line_numbers(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_reader.read_text, "__kwdefaults__", {"chunk_bytes": 500})
    path = write(tmp_path / "some.csv", 1000, extra="bad\nm,2024-01-01,7\n")
    ingest_data(make_context(files=(path,)))
    loaded = [row[0] for row in table(postgres, "select electricity_consumed from raw_data.meter_readings order by id")]
    assert loaded == [*(Decimal(number) / 8 for number in range(1000)), Decimal(7)]
    assert table(postgres, "select line_number from raw_data.rejected_readings") == [(1002,)]


def test_two_processes_with_one_file_load_it_once(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    path = write(tmp_path / "some.csv", 500)
    contexts = [make_context(files=(path,)) for _ in range(4)]
    reports: list[StepReport] = []
    threads = [
        threading.Thread(target=lambda context=context: reports.append(ingest_data(context))) for context in contexts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(the_file(report)["status"] for report in reports) == ["already loaded"] * 3 + ["loaded"]
    assert counts(postgres) == (1, 500, 0)


def test_the_database_refusing_is_a_storage_error_and_loads_nothing(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    with postgres.connect() as connection:
        connection.execute("alter table raw_data.meter_readings add check (electricity_consumed < 50)")
    with pytest.raises(StorageError, match=r"refused the readings of some\.csv"):
        ingest_data(make_context(files=(write(tmp_path / "some.csv", 500),)))
    assert counts(postgres) == (0, 0, 0)


def test_texts_that_mean_something_to_copy_are_just_texts(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    meters = ["\\N", "\\.", "a\\tb", 'say "x"', "a,b", "été", "#1", "'; drop table raw_data.meter_readings; --"]
    path = tmp_path / "été, \\.csv"
    quoted = (meter.replace('"', '""') for meter in meters)
    path.write_text("\n".join([HEADER, *(f'"{meter}",2024-01-01,1' for meter in quoted)]))
    ingest_data(make_context(files=(path,)))
    assert [row[0] for row in table(postgres, "select meter_id from raw_data.meter_readings order by id")] == meters
    assert table(postgres, "select distinct source_file from raw_data.meter_readings") == [(path.name,)]


def test_any_text_that_is_accepted_is_stored_as_it_is(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    """Every character of the basic plane that may be in a meter id, and some beyond it."""
    characters = [chr(code) for code in range(0x20, 0x10000) if not 0xD800 <= code < 0xE000] + list(
        "\U0001f50c\U00020000"
    )
    meters = [f"m{''.join(characters[start : start + 150])}m" for start in range(0, len(characters), 150)]
    path = tmp_path / "texts.csv"
    quoted = (meter.replace('"', '""') for meter in meters)
    path.write_text("\n".join([HEADER, *(f'"{meter}",2024-01-01,1' for meter in quoted)]), encoding="utf-8")
    assert ingest_data(make_context(files=(path,))).rows_out == len(meters)
    assert [row[0] for row in table(postgres, "select meter_id from raw_data.meter_readings order by id")] == meters


def test_a_mapping_of_ones_own(tmp_path: Path, make_context: MakeContext, postgres: Postgres) -> None:
    mapping = tmp_path / "my_utility.yml"
    mapping.write_text(
        "description: ours\ndelimiter: ';'\ndecimal_comma: true\nencoding: cp1252\nnull_values: ['-']\n"
        "timestamp: {columns: [Jour, Heure], formats: ['%d.%m.%Y %H:%M'], time_zone: Africa/Casablanca, edge: end}\n"
        "meter: {default_id: poste-12}\ninterval_minutes: 15\n"
        "readings:\n  consumption: {column: Puissance, unit: kW}\n  temperature: {column: Temp\u00e9rature}\n",
        encoding="utf-8",
    )
    path = tmp_path / "export.csv"
    path.write_bytes(
        "Jour;Heure;Puissance;Température\r\n01.07.2024;00:15;4,5;31,25\r\n01.07.2024;00:30;-;\r\n".encode("cp1252")
    )
    report = ingest_data(make_context(files=(path,), source=str(mapping)))
    assert the_file(report)["source"] == "my_utility"
    assert table(
        postgres,
        "select meter_id, timestamp, electricity_consumed, temperature from raw_data.meter_readings order by id",
    ) == [
        ("poste-12", datetime(2024, 6, 30, 23, 0), Decimal("1.125"), 31.25),
        ("poste-12", datetime(2024, 6, 30, 23, 15), None, None),
    ]
    with pytest.raises(InputFileError, match=r"export\.csv: unknown header"):
        ingest_data(make_context(files=(path,), source="long_format"))


def test_parquet_loads_as_text_does(tmp_path: Path, make_context: MakeContext, postgres: Postgres) -> None:
    csv = write(tmp_path / "a.csv", 200)
    pl.read_csv(csv, try_parse_dates=True).write_parquet(tmp_path / "b.parquet")
    ingest_data(make_context(files=(tmp_path,)))
    query = (
        "select meter_id, timestamp, electricity_consumed from raw_data.meter_readings "
        "where source_file = '{}' order by id"
    )
    rows = table(postgres, query.format("a.csv"))
    assert len(rows) == 200
    assert table(postgres, query.format("b.parquet")) == rows


def test_unknown_columns_are_ignored_with_a_warning(tmp_path: Path, make_context: MakeContext) -> None:
    path = tmp_path / "some.csv"
    path.write_text(f"{HEADER},tariff\nm,2024-01-01,1,x\n")
    for step in (check_source, ingest_data):
        assert step(make_context(files=(path,))).warnings == (
            "some.csv: columns that the source does not know are ignored: tariff",
        )


def test_a_folder_may_hold_other_tables_but_a_named_file_must_be_readings(
    make_context: Callable[..., RunContext], tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "meters.csv").write_text("meter_id,address\nm1,Main Street\n")
    with pytest.raises(UnknownFormatError, match=r"meters\.csv"):  # nothing in it is known
        ingest_data(make_context((folder,)))
    (folder / "readings.csv").write_text("meter_id,timestamp,consumption_kwh\nm1,2024-01-01 00:00,0.5\n")
    report = ingest_data(make_context((folder,)))
    assert report.rows_out == 1
    assert any("meters.csv: ignored" in warning for warning in report.warnings)
    with pytest.raises(UnknownFormatError, match=r"meters\.csv"):
        ingest_data(make_context((folder, folder / "meters.csv")))


# --- what a load leaves for the steps after it -----------------------------------------------------------------------


def test_a_load_logs_the_days_of_meters_that_it_touched(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_reader.read_text, "__kwdefaults__", {"chunk_bytes": 60})  # days come in several chunks
    path = tmp_path / "some.csv"
    lines = [
        f"{meter},2024-03-{day:02}T{hour:02}:00:00+02:00,"
        for hour in (1, 13)
        for day in (9, 11)
        for meter in ("a", "b, ü", "a")
    ]
    path.write_text("\n".join([HEADER, *(line.replace("b, ü", '"b, ü"') for line in lines), "c,bad,1"]))
    context = make_context(files=(path,), max_rejected_share=0.1)
    ingest_data(context)
    ((sha256,),) = table(postgres, "select sha256 from raw_data.ingested_files")
    assert table(postgres, "select kind, file_id, file_name, sha256, run_id from raw_data.changes") == [
        ("load", 1, "some.csv", sha256, context.run_id)
    ]
    days = "select change_id, meter_id, cast(reading_date as text) from raw_data.changed_days order by meter_id, 3"
    assert table(postgres, days) == [
        (1, meter, f"2024-03-{day:02}") for meter in ("a", "b, ü") for day in (8, 9, 10, 11)
    ]  # 1:00 at +02:00 is the day before in UTC
    ingest_data(context)
    assert len(table(postgres, days)) == 8, "a file that was loaded before touches nothing"
    write(tmp_path / "more.csv", 96)
    ingest_data(make_context(files=(tmp_path / "more.csv",)))
    assert table(postgres, days)[8:] == [(2, "m", "2024-01-01"), (2, "m", "2024-01-02")]


def test_a_refused_file_logs_nothing(tmp_path: Path, make_context: MakeContext, postgres: Postgres) -> None:
    with pytest.raises(InputFileError):
        ingest_data(make_context(files=(write(tmp_path / "some.csv", 10, extra="bad\n" * 9),)))
    for name in ("changes", "changed_days"):
        assert table(postgres, f"select * from raw_data.{name}") == []


def test_how_a_file_was_read_is_kept_with_it(tmp_path: Path, make_context: MakeContext, postgres: Postgres) -> None:
    path = tmp_path / "both.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "\n".join([*KAGGLE, "2024-01-01 00:00,1,1,1,1,1,Normal"]))
        archive.writestr("b.csv", "\n".join([*KAGGLE, "01/31/2024 0:30,1,1,1,1,1,Normal"]).replace(",Humidity,", ",X,"))
        archive.writestr("c.csv", "\n".join([*KAGGLE, "no reading"]))
    ingest_data(make_context(files=(path,), time_zone="Africa/Lagos", default_meter_id="mine", max_rejected_share=0.5))
    ((content,),) = table(postgres, "select layout from raw_data.ingested_files")
    layout = FileLayout.model_validate(content)
    assert layout.mapping == load_mappings()["kaggle_smart_meter"]
    assert (layout.time_zone, layout.default_meter_id, layout.interval_minutes) == ("Africa/Lagos", "mine", 30)
    names = KAGGLE[0].split(",")
    assert [(part.part, part.kind, part.names, part.timestamp_format) for part in layout.tables] == [
        ("both.zip/a.csv", "text", names, "iso"),
        ("both.zip/b.csv", "text", [name.replace("Humidity", "X") for name in names], "%m/%d/%Y %H:%M"),
        ("both.zip/c.csv", "text", names, None),
    ]
    assert layout.retried_file_id is None


def test_after_a_load_the_planner_knows_the_table_and_its_index_the_new_pages(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    big, small = write(tmp_path / "big.csv", 1), write(tmp_path / "small.csv", 48, meter="late")
    readings = [f"m{number % 500},2024-02-{1 + number % 28:02},1" for number in range(60_000)]
    big.write_text("\n".join([HEADER, *readings]))
    ingest_data(make_context(files=(big,)))
    known = "select reltuples from pg_class where oid = 'raw_data.meter_readings'::regclass"
    assert table(postgres, known) == [(60_000,)]
    ingest_data(make_context(files=(small,)))
    assert table(postgres, known) == [(60_000,)], "a small load is not worth it"
    day = "select * from raw_data.meter_readings where timestamp >= '2024-01-01' and timestamp < '2024-01-02'"
    with postgres.connect() as connection:
        connection.execute("set local enable_seqscan = off")
        ((plan,),) = connection.execute(f"explain (analyze, format json) {day}").fetchall()
    (scan,) = [plan[0]["Plan"]] if "Plans" in plan[0]["Plan"] else []
    assert scan["Node Type"] == "Bitmap Heap Scan"
    assert scan["Actual Rows"] == 48
    assert scan["Rows Removed by Index Recheck"] < 6_000, "the new pages are in no block range of the index"


def test_a_loader_that_does_not_own_the_tables_can_load_and_forget(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    role = f"loader_{uuid4().hex}"
    path = write(tmp_path / "some.csv", 500, extra="bad\n")
    with postgres.connect() as connection:
        connection.execute(
            f"create role {role} login; grant usage on schema raw_data, quality to {role}; "
            f"grant select, insert, update, delete on all tables in schema raw_data, quality to {role}"
        )
    try:
        context = make_context(files=(path,))
        dsn = make_conninfo(postgres.conninfo, user=role)
        context = replace(context, settings=context.settings.model_copy(update={"postgres_dsn": SecretStr(dsn)}))
        ingest_data(context)
        assert counts(postgres) == (1, 500, 1)
        forget(replace(context, options=RunOptions(forget_run=context.run_id)))
        assert counts(postgres) == (0, 0, 0)
    finally:
        with postgres.connect() as connection:
            connection.execute(f"drop owned by {role}; drop role {role}")
