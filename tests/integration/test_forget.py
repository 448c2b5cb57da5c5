"""Taking files out of raw_data again, on a real PostgreSQL."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from energy_iot.errors import StorageError, UsageError
from energy_iot.ingestion.forget import forget
from energy_iot.ingestion.load_data import ingest_data
from energy_iot.ingestion.rejects import retry_rejects
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.storage.postgres import Postgres
from tests.work_counters import counted, keep_upkeep_off

MakeContext = Callable[..., RunContext]
HEADER = "meter_id,timestamp,consumption_kwh"


def rows(postgres: Postgres, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    with postgres.connect() as connection:
        return connection.execute(query, parameters).fetchall()


def write(path: Path, meter: str, days: int, *extra: str) -> Path:
    lines = [f"{meter},2024-01-{day:02} {hour:02}:00,{day}.{hour}" for day in range(1, days + 1) for hour in range(24)]
    path.write_text("\n".join([HEADER, *lines, *extra]) + "\n")
    return path


@pytest.fixture
def load(make_context: MakeContext) -> Callable[..., str]:
    """Load files; gives the id of the run."""

    def load(*paths: Path) -> str:
        context = make_context(files=paths)
        ingest_data(context)
        return context.run_id

    return load


@pytest.fixture
def forget_now(make_context: MakeContext) -> Callable[..., StepReport]:
    def forget_now(file: str | None = None, run: str | None = None) -> StepReport:
        context = make_context()
        return forget(replace(context, options=replace(context.options, forget_file=file, forget_run=run)))

    return forget_now


def raw_state(postgres: Postgres) -> list[list[tuple[Any, ...]]]:
    return [
        rows(postgres, query)
        for query in (
            "select meter_id, timestamp, electricity_consumed, source_file from raw_data.meter_readings "
            "order by 1, 2, 3",
            "select source_file, line_number, raw_text, reason, resolved_by_file_id is null "
            "from raw_data.rejected_readings order by 1, 2",
            "select sha256, file_name, lines_read, readings_loaded, readings_rejected, layout "
            "from raw_data.ingested_files order by 1",
        )
    ]


def changed_days(postgres: Postgres, change: str = "(select max(change_id) from raw_data.changes)") -> list[Any]:
    query = f"select meter_id, reading_date from raw_data.changed_days where change_id = {change} order by 1, 2"
    return rows(postgres, query)


def test_a_forgotten_file_is_as_if_it_had_never_been_loaded(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], forget_now: Callable[..., StepReport]
) -> None:
    kept = write(tmp_path / "kept.csv", "a", 3, "a,bad,1")
    gone = write(tmp_path / "gone.csv", "b", 2, "b,bad,2", "c,2024-02-29 00:00,")
    load(kept)
    before = raw_state(postgres)
    load(gone)
    report = forget_now("gone.csv")
    assert raw_state(postgres) == before
    assert (report.rows_in, report.warnings) == (49, ())
    ((sha256,),) = rows(postgres, "select distinct sha256 from raw_data.changes where file_name = 'gone.csv'")
    assert json.loads(json.dumps(report.details)) == {
        "files": [{"file": "gone.csv", "sha256": sha256, "readings": 49, "rejects": 1, "days": 3, "reopened": 0}],
        "changed_days": 3,
    }
    assert changed_days(postgres) == [("b", date(2024, 1, 1)), ("b", date(2024, 1, 2)), ("c", date(2024, 2, 29))]
    assert rows(postgres, "select kind, file_name from raw_data.changes order by change_id") == [
        ("load", "kept.csv"),
        ("load", "gone.csv"),
        ("forget", "gone.csv"),
    ]


def test_a_forgotten_file_can_be_loaded_again(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], forget_now: Callable[..., StepReport]
) -> None:
    path = write(tmp_path / "some.csv", "a", 2, "a,bad,1")
    load(path)
    before = raw_state(postgres)
    forget_now("some.csv")
    assert raw_state(postgres) == [[], [], []]
    load(path)
    assert raw_state(postgres) == before


def test_a_file_is_named_by_name_or_by_the_beginning_of_its_hash(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], forget_now: Callable[..., StepReport]
) -> None:
    path = write(tmp_path / "same.csv", "a", 1)
    load(path)
    load(write(path, "a", 2))
    first, second = [row[0] for row in rows(postgres, "select sha256 from raw_data.ingested_files order by file_id")]
    with pytest.raises(UsageError, match="may be one of 2 loaded files") as several:
        forget_now("same.csv")
    for listed in (f"{first[:12]}  same.csv: 24 readings, loaded 20", f"{second[:12]}  same.csv: 48 readings, loaded"):
        assert listed in several.value.problem
    assert second[:12] in several.value.fix
    forget_now(first[:8].upper())
    assert rows(postgres, "select sha256 from raw_data.ingested_files") == [(second,)]
    with pytest.raises(UsageError, match=f"no loaded file '{second[:7]}'"):
        forget_now(second[:7])
    forget_now(second)
    with pytest.raises(UsageError, match="nothing is loaded"):
        forget_now(second)


def test_an_unknown_name_tells_similar_ones_or_all(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], forget_now: Callable[..., StepReport]
) -> None:
    load(write(tmp_path / "readings_2024_01.csv", "a", 1), write(tmp_path / "other.csv", "b", 1))
    with pytest.raises(UsageError, match="similar are") as similar:
        forget_now("data/readings_2024_1.csv")
    assert "readings_2024_01.csv: 24 readings" in similar.value.problem
    assert "other.csv" not in similar.value.problem
    with pytest.raises(UsageError, match="loaded are") as none_similar:
        forget_now("Q")
    assert "readings_2024_01.csv" in none_similar.value.problem
    assert "other.csv" in none_similar.value.problem
    assert len(rows(postgres, "select 1 from raw_data.meter_readings")) == 48


def test_all_files_of_a_run(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], forget_now: Callable[..., StepReport]
) -> None:
    other = load(write(tmp_path / "a.csv", "a", 1))
    before = raw_state(postgres)
    run = load(write(tmp_path / "b.csv", "b", 1), write(tmp_path / "c.csv", "c", 2))
    report = forget_now(run=run)
    assert [file["file"] for file in report.details["files"]] == ["b.csv", "c.csv"]
    assert raw_state(postgres) == before
    with pytest.raises(UsageError, match=f"run {run} loaded no file that is still there") as gone:
        forget_now(run=run)
    assert other in gone.value.fix
    with pytest.raises(UsageError, match="no run 'yesterday'"):
        forget_now(run="yesterday")


@pytest.mark.parametrize(("file", "run"), [(None, None), ("a.csv", "some run")])
def test_either_a_file_or_a_run(forget_now: Callable[..., StepReport], file: str | None, run: str | None) -> None:
    with pytest.raises(UsageError, match="a file or a run"):
        forget_now(file, run)


def test_what_retried_rejects_brought_goes_with_their_file(
    tmp_path: Path,
    postgres: Postgres,
    load: Callable[..., str],
    forget_now: Callable[..., StepReport],
    make_context: MakeContext,
) -> None:
    path = write(tmp_path / "some.csv", "a", 2, "a,2024-01-05 00:00,n/a", "a,2024-01-06 00:00,x")
    load(write(tmp_path / "other.csv", "b", 1))
    before = raw_state(postgres)
    load(path)
    mapping = tmp_path / "long_format.yml"
    shipped = Path(__file__).parents[2] / "configs" / "sources" / "long_format.yml"
    mapping.write_text(shipped.read_text().replace('["NA"', '["n/a", "NA"'))
    assert retry_rejects(make_context(source=str(mapping))).rows_out == 1

    # the retried readings alone: then their rejects are open again
    report = forget_now("some.csv (retried rejects)")
    assert [(file["readings"], file["reopened"]) for file in report.details["files"]] == [(1, 1)]
    assert changed_days(postgres) == [("a", date(2024, 1, 5))]
    assert retry_rejects(make_context(source=str(mapping))).rows_out == 1

    report = forget_now("some.csv")
    assert [file["file"] for file in report.details["files"]] == ["some.csv", "some.csv (retried rejects)"]
    assert report.warnings == ("some.csv (retried rejects): 1 readings of retried rejects went too",)
    assert raw_state(postgres) == before


def test_a_refusal_leaves_everything_as_it_was(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], forget_now: Callable[..., StepReport]
) -> None:
    load(write(tmp_path / "a.csv", "a", 1, "a,bad,1"))
    before = raw_state(postgres)
    with postgres.connect() as connection:
        connection.execute(
            "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$; "
            "create trigger refuse before delete on raw_data.ingested_files execute function refuse()"
        )
    with pytest.raises(StorageError, match="no"):
        forget_now("a.csv")
    assert raw_state(postgres) == before
    assert rows(postgres, "select kind from raw_data.changes") == [("load",)]


def pages_and_scans(postgres: Postgres) -> tuple[int, int]:
    """Of the raw readings: pages looked at, and scans of the whole, since the table was made."""
    ((pages, scans),) = counted(
        postgres,
        "select heap_blks_read + heap_blks_hit, seq_scan from pg_statio_user_tables "
        "join pg_stat_user_tables using (relid) where relid = 'raw_data.meter_readings'::regclass",
    )
    return pages, scans


def test_only_the_pages_of_the_file_are_read(
    tmp_path: Path, postgres: Postgres, load: Callable[..., str], forget_now: Callable[..., StepReport]
) -> None:
    keep_upkeep_off(postgres)
    lines = [f"m{meter},2024-01-{day:02},1" for meter in range(2000) for day in range(1, 29)]
    (tmp_path / "big.csv").write_text("\n".join([HEADER, *lines]))
    load(tmp_path / "big.csv")
    load(write(tmp_path / "small.csv", "a", 2))
    ((pages,),) = rows(
        postgres, "select pg_relation_size('raw_data.meter_readings') / current_setting('block_size')::int"
    )
    before = pages_and_scans(postgres)
    forget_now("small.csv")
    after = pages_and_scans(postgres)
    assert pages > 500
    assert after[1] == before[1], "the whole table was scanned"
    assert after[0] - before[0] < pages / 2
