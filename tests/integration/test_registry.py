"""Files beside the readings on a real PostgreSQL: loaded, recognised, refused, rejected and taken out again."""

import gzip
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from energy_iot.errors import InputFileError
from energy_iot.ingestion import registry
from energy_iot.ingestion.forget import forget
from energy_iot.ingestion.load_data import check_source, ingest_data
from energy_iot.ingestion.readers import text as text_reader
from energy_iot.ingestion.registry_format import FORMATS
from energy_iot.ingestion.reject_list import export_rejects, list_rejects
from energy_iot.ingestion.rejects import retry_rejects
from energy_iot.pipeline import RunContext, RunOptions, StepReport
from energy_iot.storage.changes import DerivedState, remove_followed_days, write_state
from energy_iot.storage.postgres import Postgres

MakeContext = Callable[..., RunContext]
FILES = {
    "meters.csv": """\
meter_id,service_point_id,transformer_id,customer_class,tariff_per_kwh,currency,contracted_power_kw,is_prepaid,latitude,longitude,valid_from,valid_to
m1,sp1,t1,residential,96.0,XOF,2.2,false,12.4,-1.5,2023-01-01,2024-01-11
m1b,sp1,t1,residential,96.0,XOF,2.2,false,12.4,-1.5,2024-01-11,
m2,sp2,t1,,,,,true,,,2023-06-01,
""",
    "network_nodes.csv": """\
node_id,node_type,parent_id,rated_kva,no_load_loss_kw,load_loss_kw,latitude,longitude,valid_from,valid_to
s1,substation,,20000,,,12.3,-1.5,2001-06-22,
f1,feeder,s1,3150,0,94.5,12.3,-1.5,2001-06-22,
t1,transformer,f1,100,0.32,1.75,12.3,-1.5,2001-06-22,
""",
    "network_readings.csv": """\
node_id,timestamp,energy_in_kwh
t1,2024-01-01 00:00:00,0.712
t1,2024-01-01 00:30:00,0.1
f1,2024-01-01 00:00:00,
f1,2024-01-02 00:00:00,0.8
""",
    "outages.csv": """\
node_id,start_time,end_time,cause
f1,2024-01-06 18:00:00,2024-01-06 23:00:00,load_shedding
t1,2024-01-07 18:00:00,,fault
""",
    "inspections.csv": """\
meter_id,inspected_on,found_theft,kind,recovered_kwh
m1,2024-02-01,true,bypass,120.5
m2,2024-02-01,false,,
""",
    "readings.csv": "meter_id,timestamp,consumption_kwh\nm1,2024-01-01 00:00:00,0.5\nm1,2024-01-01 00:30:00,0.25\n",
    "truth.csv": "subject_id,subject_type,kind,is_theft,start_time,end_time,stolen_kwh\nm1,meter,vacancy,false,,,0\n",
}  # fmt: skip
ROWS = {"meters": 3, "network_nodes": 3, "network_readings": 4, "outages": 2, "inspections": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One file of each kind, and one that is no business of the pipeline."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def rows(postgres: Postgres, query: str) -> list[tuple[Any, ...]]:
    with postgres.connect() as connection:
        return connection.execute(query.encode()).fetchall()


def counts(postgres: Postgres) -> dict[str, int]:
    return {content: rows(postgres, f"select count(*) from {known.table}")[0][0] for content, known in FORMATS.items()}


def forget_file(context: RunContext, name: str) -> StepReport:
    return forget(replace(context, options=RunOptions(forget_file=name)))


def test_a_folder_of_all_kinds_is_loaded_once(folder: Path, make_context: MakeContext, postgres: Postgres) -> None:
    checked = check_source(make_context(files=(folder,)))
    assert counts(postgres) == dict.fromkeys(FORMATS, 0)
    assert {file["file"]: file["source"] for file in checked.details["files"]} == {
        f"{content}.csv": content for content in FORMATS
    } | {"readings.csv": "long_format"}
    report = ingest_data(make_context(files=(folder,)))
    assert counts(postgres) == ROWS
    assert (report.rows_in, report.rows_out) == (16, 16)
    assert report.warnings == (
        "truth.csv: ignored, it has the header of no known source",
        "network_readings.csv: 1 of 4 readings have no energy: kept in raw_data, counted as missing",
    )
    again = ingest_data(make_context(files=(folder,)))
    assert again.skipped is not None
    assert counts(postgres) == ROWS


def test_what_is_stored(folder: Path, make_context: MakeContext, postgres: Postgres) -> None:
    ingest_data(make_context(files=(folder,)))
    meters = rows(postgres, "select * from raw_data.meters order by id")
    day = date(2024, 1, 11)
    kept = ("m1", "sp1", "t1", "residential", Decimal("96.0"), "XOF", 2.2, False, 12.4, -1.5, date(2023, 1, 1), day)
    assert meters[0][1:13] == kept
    assert meters[2][1:13] == ("m2", "sp2", "t1", None, None, None, None, True, None, None, date(2023, 6, 1), None)
    assert rows(postgres, "select node_id, timestamp, energy_in_kwh from raw_data.network_readings order by id") == [
        ("t1", datetime(2024, 1, 1), Decimal("0.712")),
        ("t1", datetime(2024, 1, 1, 0, 30), Decimal("0.1")),
        ("f1", datetime(2024, 1, 1), None),
        ("f1", datetime(2024, 1, 2), Decimal("0.8")),
    ]
    assert rows(
        postgres,
        "select content, source_name, registry_rows_loaded, readings_loaded, lines_read, interval_minutes "
        "from raw_data.ingested_files order by content",
    ) == [
        ("inspections", "inspections", 2, 0, 2, None),
        ("meters", "meters", 3, 0, 3, None),
        ("network_nodes", "network_nodes", 3, 0, 3, None),
        ("network_readings", "network_readings", 4, 0, 4, 30),
        ("outages", "outages", 2, 0, 2, None),
        ("readings", "long_format", 0, 2, 2, 30),
    ]
    assert rows(postgres, "select content, affects_from from raw_data.changes order by content") == [
        ("inspections", None),
        ("meters", date(2023, 1, 1)),
        ("network_nodes", date(2001, 6, 22)),
        ("network_readings", None),
        ("outages", None),
        ("readings", None),
    ]
    assert rows(postgres, "select node_id, reading_date from raw_data.changed_node_days order by 1, 2") == [
        ("f1", date(2024, 1, 1)),
        ("f1", date(2024, 1, 2)),
        ("t1", date(2024, 1, 1)),
    ]
    assert rows(postgres, "select distinct meter_id, reading_date from raw_data.changed_days") == [
        ("m1", date(2024, 1, 1))
    ]


@pytest.mark.parametrize("pack", ["gz", "zip", "other name"])
def test_a_file_is_known_by_its_header_however_it_comes(
    pack: str, tmp_path: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    content = FILES["meters.csv"].encode()
    path = tmp_path / f"kunden.{pack}"
    if pack == "gz":
        path.write_bytes(gzip.compress(content))
    elif pack == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inside.csv", content)
    else:
        path = tmp_path / "anything.txt"
        path.write_bytes(content.replace(b"\n", b"\r\n"))
    assert ingest_data(make_context(files=(path,))).rows_out == 3
    assert counts(postgres)["meters"] == 3


def test_an_archive_of_readings_and_meters_gives_its_readings(
    folder: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("readings.csv", "meters.csv"):
            archive.write(folder / name, name)
    report = ingest_data(make_context(files=(path,)))
    assert report.rows_out == 2
    assert report.warnings == ("all.zip/meters.csv: ignored, it holds meters: give it as a file of its own",)
    assert counts(postgres)["meters"] == 0


def test_bad_lines_are_kept_with_line_and_reason(tmp_path: Path, make_context: MakeContext, postgres: Postgres) -> None:
    path = tmp_path / "nodes.csv"
    good = "".join(f"t{number},transformer,f1,100,0.3,1.7,,,2001-06-22,\n" for number in range(60))
    header = FILES["network_nodes.csv"].splitlines()[0]
    path.write_text(f"{header}\n{good}x,pylon,f1,,,,,,2001-06-22,\n,feeder,s1,,,,,,2001-06-22,\ntoo,few\n")
    report = ingest_data(make_context(files=(path,)))
    assert (report.rows_in, report.rows_out, report.details["rejected"]) == (63, 60, 3)
    assert report.warnings == (
        "nodes.csv: 3 of 63 lines rejected: "
        "line 62: node_type 'pylon' is none of substation, feeder, transformer; "
        "line 63: node_id is missing; line 64: 2 fields where the header has 10",
    )
    found = list_rejects(postgres)
    assert [(line.file, line.line_number, line.raw_text) for line in found.lines] == [
        ("nodes.csv", 62, "x,pylon,f1,,,,,,2001-06-22,"),
        ("nodes.csv", 63, ",feeder,s1,,,,,,2001-06-22,"),
        ("nodes.csv", 64, "too,few"),
    ]
    exported = tmp_path / "rejects.csv"
    assert export_rejects(postgres, exported) == 3
    context = make_context()
    retried = retry_rejects(context)
    assert retried.skipped
    assert (
        "nodes.csv: its rejects cannot be tried: it holds no readings but registry of network nodes"
        in (retried.warnings[0])
    )
    with pytest.raises(InputFileError, match="it holds no readings but registry of network nodes") as refused:
        retry_rejects(replace(context, options=RunOptions(corrected_rejects=exported)))
    assert "energy-iot forget --file NAME" in refused.value.fix
    assert forget_file(context, "nodes.csv").details["files"][0]["rejects"] == 3
    assert list_rejects(postgres).files == ()


def test_a_file_is_loaded_whole_or_not_at_all(
    folder: Path, make_context: MakeContext, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "meters.csv").write_text(FILES["meters.csv"] + "m3,sp3,t1,church,,,,,,,2024-01-01,\n")
    with pytest.raises(InputFileError, match=r"1 of 4 lines cannot be read .*\n  line 5: customer_class 'church'"):
        ingest_data(make_context(files=(folder / "meters.csv",)))
    monkeypatch.setattr(text_reader, "LINES_AT_ONCE", 1)
    sent: list[str] = []
    copy = registry.copy_frame

    def fail_at_third(connection: Any, table: str, frame: Any) -> None:
        sent.append(table)
        if sent.count("raw_data.network_nodes") == 3:
            raise InputFileError("the cable was pulled", fix="plug it in")
        copy(connection, table, frame)

    monkeypatch.setattr(registry, "copy_frame", fail_at_third)
    with pytest.raises(InputFileError, match="cable"):
        ingest_data(make_context(files=(folder / "network_nodes.csv",)))
    assert counts(postgres) == dict.fromkeys(FORMATS, 0)
    for table in ("ingested_files", "rejected_readings", "changes", "changed_node_days"):
        assert rows(postgres, f"select count(*) from raw_data.{table}") == [(0,)]


def test_a_stream_of_small_pieces_is_the_same_as_one(
    tmp_path: Path, make_context: MakeContext, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        f"t{node},2024-01-{1 + slot // 24:02} {slot % 24:02}:00:00,{slot / 8}"
        for node in range(5)
        for slot in range(96)
    ]
    path = tmp_path / "flows.csv"
    path.write_text("\n".join(["node_id,timestamp,energy_in_kwh", *lines]) + "\n")
    monkeypatch.setattr(text_reader, "LINES_AT_ONCE", 50)
    ((report,), loaded) = ((run := ingest_data(make_context(files=(path,)))).details["files"], run.rows_out)
    assert (loaded, report["interval_minutes"]) == (480, 60)
    assert (report["first_timestamp"], report["last_timestamp"]) == ("2024-01-01T00:00:00", "2024-01-04T23:00:00")
    assert rows(postgres, "select count(*), count(distinct (node_id, timestamp)) from raw_data.network_readings") == [
        (480, 480)
    ]
    assert rows(postgres, "select count(*) from raw_data.changed_node_days") == [(20,)]


def test_forgotten_files_leave_nothing_and_may_come_again(
    folder: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    ingest_data(make_context(files=(folder,)))
    for content, count in ROWS.items():
        details = forget_file(make_context(), f"{content}.csv").details["files"][0]
        assert (details["content"], details["registry_rows"], details["readings"]) == (content, count, 0)
    assert counts(postgres) == dict.fromkeys(FORMATS, 0)
    assert rows(
        postgres, "select content, affects_from from raw_data.changes where kind = 'forget' order by content"
    ) == [
        ("inspections", None),
        ("meters", date(2023, 1, 1)),
        ("network_nodes", date(2001, 6, 22)),
        ("network_readings", None),
        ("outages", None),
    ]
    assert rows(
        postgres,
        "select count(*) from raw_data.changed_node_days where change_id = (select max(change_id) "
        "from raw_data.changes where content = 'network_readings')",
    ) == [(3,)]
    assert rows(postgres, "select content from raw_data.ingested_files") == [("readings",)]
    assert ingest_data(make_context(files=(folder,))).rows_out == 14
    assert counts(postgres) == ROWS


@pytest.mark.parametrize(
    ("line", "affects_from"),
    [
        ("m1,sp1,t1,residential,96.0,XOF,2.2,false,12.4,-1.5,2023-01-01,2024-01-11", None),  # as it was
        ("m2,sp2,t1,,,,,TRUE,,,2023-06-01,", None),  # otherwise written
        ("m2,sp2,t2,,,,,true,,,2023-06-01,", date(2023, 6, 1)),  # moved from the beginning
        ("m2,sp2,t2,,,,,true,,,2024-03-01,", date(2024, 3, 1)),  # moved later
        ("m9,sp9,t1,,,,,true,,,2024-05-01,", date(2024, 5, 1)),  # new
    ],
)
def test_a_registry_sent_again_affects_only_what_it_changes(
    line: str, affects_from: date | None, folder: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    ingest_data(make_context(files=(folder / "meters.csv",)))
    header, *known = FILES["meters.csv"].splitlines()
    (folder / "again.csv").write_text("\n".join([header, *reversed(known), line]) + "\n")
    ingest_data(make_context(files=(folder / "again.csv",)))
    assert rows(postgres, "select affects_from from raw_data.changes order by change_id desc limit 1") == [
        (affects_from,)
    ]


def test_days_of_nodes_that_all_have_followed_are_removed(
    folder: Path, make_context: MakeContext, postgres: Postgres
) -> None:
    ingest_data(make_context(files=(folder / "network_readings.csv",)))
    with postgres.connect() as connection:
        remove_followed_days(connection)  # nothing is derived yet
    assert rows(postgres, "select count(*) from raw_data.changed_node_days") == [(3,)]
    with postgres.connect() as connection:
        write_state(connection, DerivedState("int_energy_balance", 1, "made so"))
        remove_followed_days(connection)
    assert rows(postgres, "select count(*) from raw_data.changed_node_days") == [(0,)]
