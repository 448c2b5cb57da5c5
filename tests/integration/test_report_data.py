"""What the report reads from a real PostgreSQL, and the file that it writes."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from energy_iot.errors import StorageError, UsageError
from energy_iot.reporting.page import vega_bundle
from energy_iot.reporting.report import write_report
from energy_iot.reporting.report_data import PLOTTED_ANOMALIES, PLOTTED_OTHERS, read_report_data
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres
from tests.report_fleet import CAVEAT, RUN_ID, Fleet, fill_tables, make_tables, record_run

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def connection(postgres: Postgres) -> Iterator[psycopg.Connection]:
    with postgres.connect(autocommit=True) as opened:
        yield opened


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The charts' library, bundled once: it takes seconds."""
    cache = tmp_path_factory.mktemp("bundle")
    assert len(vega_bundle(cache)) > 500_000
    (kept,) = cache.iterdir()
    return kept


@pytest.fixture
def bundled(settings: Settings, bundle: Path) -> Settings:
    """Settings whose home holds the charts' library already."""
    cache = settings.home / "cache"
    cache.mkdir(parents=True)
    (cache / bundle.name).symlink_to(bundle)
    return settings


def one(connection: psycopg.Connection, query: str) -> tuple[object, ...]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return tuple(row)


def test_an_empty_database_has_nothing_to_report(settings: Settings, postgres: Postgres) -> None:
    with pytest.raises(UsageError, match="nothing to report yet") as refused:
        write_report(settings)
    assert refused.value.fix == "energy-iot run FILE"
    assert not settings.reports_dir.exists()


def test_an_empty_home_is_left_empty(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to report yet"):
        write_report(Settings(home=tmp_path / "home"))
    assert not (tmp_path / "home").exists()


def test_totals_agree_with_the_tables(postgres: Postgres, connection: psycopg.Connection) -> None:
    fill_tables(connection, Fleet(meters=7, days=20, names=("a", HOSTILE)))
    record_run(connection, agreement=True, failures=True)
    data = read_report_data(postgres, now=datetime(2026, 3, 2))
    readings, anomalies, kwh, meters = one(
        connection,
        "select count(*), count(*) filter (where is_anomaly), sum(consumption_kwh), count(distinct meter_id) "
        "from marts.mart_anomaly_scores",
    )
    assert data.scores is not None
    assert data.gaps is not None
    assert (data.readings, data.scores.readings, data.meters) == (readings, readings, meters)
    assert data.scores.anomalies == anomalies == sum(data.scores.anomalies_by_type.values())
    assert sum(day.anomalies or 0 for day in data.days) == anomalies
    assert data.consumption_kwh == pytest.approx(kwh)
    gaps, missing = one(connection, "select count(*), sum(missing_readings) from intermediate.int_reading_gaps")
    assert (data.gaps.gaps, data.gaps.missing_readings) == (gaps, missing)
    assert data.completeness == pytest.approx(data.readings / (7 * 20 * 48), abs=0.003)  # gaps at the ends are none
    assert data.run is not None
    assert (data.run.run_id, data.run.seconds, len(data.steps)) == (RUN_ID, pytest.approx(48.2), 9)
    assert data.steps[5].warnings == ("2.4 % of readings are anomalies: more than the expected 2 %",)
    assert data.agreement is not None
    assert data.agreement["caveat"] == CAVEAT
    assert data.threshold == 0.6
    assert [(suite.met, suite.failed_critical, suite.failed_warning, suite.failed_info) for suite in data.suites] == [
        (1, 1, 1, 0),
        (1, 0, 0, 1),
    ]
    assert [failure.severity for failure in data.failures] == ["critical", "warning", "info"]
    assert data.sources is not None
    assert (data.sources.intervals_minutes, data.rejects[0].rejected_rows) == ((30,), 3)


def test_hours_of_the_week_agree_with_the_calendar(postgres: Postgres, connection: psycopg.Connection) -> None:
    fill_tables(connection, Fleet(meters=3, days=16))
    data = read_report_data(postgres)
    expected = connection.execute(
        "select extract(dow from reading_timestamp)::integer, extract(hour from reading_timestamp)::integer, "
        "avg(active_power_kw), count(*) from marts.mart_anomaly_scores group by 1, 2 order by 1, 2"
    ).fetchall()
    assert len(expected) == 168
    found = [(cell.day_of_week, cell.hour_of_day, cell.avg_power_kw, cell.reading_count) for cell in data.week]
    assert found == [(day, hour, pytest.approx(power), readings) for day, hour, power, readings in expected]


def test_a_meter_that_is_silent_all_day_makes_the_day_incomplete(
    postgres: Postgres, connection: psycopg.Connection
) -> None:
    fill_tables(connection, Fleet(meters=4, days=9, gaps=False))
    connection.execute(
        "delete from marts.mart_consumption_metrics where period_type = 'day' and period_start = '2025-12-04' "
        "and meter_id = 'MTR-010407'"
    )
    # one that came later is not missed before it came
    connection.execute(
        "delete from marts.mart_consumption_metrics where period_start < '2025-12-03' and meter_id = 'MTR-010400'"
    )
    data = read_report_data(postgres)
    assert [round(day.completeness, 3) for day in data.days] == [1, 1, 1, 0.75, 1, 1, 1, 1, 1]
    assert [day.meters for day in data.days] == [3, 3, 4, 3, 4, 4, 4, 4, 4]
    assert data.meters == 4


def test_meters_are_ranked_by_share_and_short_series_left_out(
    postgres: Postgres, connection: psycopg.Connection
) -> None:
    make_tables(connection)
    connection.execute(
        "insert into marts.mart_anomaly_scores (reading_id, meter_id, reading_timestamp, consumption_kwh, "
        "active_power_kw, anomaly_score, is_anomaly, anomaly_type, model_version, scored_at) "
        "select row_number() over (), meter, '2026-01-01'::timestamp + make_interval(mins => n * 30), 1, 2, "
        "case when n < odd then 0.7 else 0.4 end, n < odd, case when n < odd then 'low_consumption' end, 1, now() "
        "from (values ('often', 100, 20), ('seldom', 100, 1), ('never', 100, 0), ('short', 3, 3)) "
        "as meters (meter, number, odd), lateral generate_series(0, number - 1) as n"
    )
    connection.execute(
        "insert into quality.pipeline_runs (run_id, status, options, package_version) "
        "values ('r', 'running', '{}', '0')"
    )
    scores = read_report_data(postgres).scores
    assert scores is not None
    assert [(meter.meter_id, meter.low_consumption) for meter in scores.meters] == [("often", 20), ("seldom", 1)]
    assert (scores.meters_scored, scores.meters_ranked, scores.meters_with_anomalies) == (4, 3, 3)


def test_the_plotted_sample_is_bounded_and_the_same_each_time(
    postgres: Postgres, connection: psycopg.Connection
) -> None:
    fill_tables(connection, Fleet(meters=12, days=90))
    connection.execute(  # many anomalies
        "update marts.mart_anomaly_scores set is_anomaly = true, anomaly_score = 0.61 + reading_id / 1e6 "
        "where reading_id % 20 = 0"
    )
    first, second = read_report_data(postgres).scores, read_report_data(postgres).scores
    assert first is not None
    assert second is not None
    assert (first.top, first.others) == (second.top, second.others)
    assert len(first.top) == PLOTTED_ANOMALIES < first.anomalies
    assert len(first.others) == PLOTTED_OTHERS
    assert [reading.anomaly_score for reading in first.top] == sorted(
        (reading.anomaly_score for reading in first.top), reverse=True
    )
    assert {reading.anomaly_type for reading in first.others} == {None}
    assert None not in {reading.anomaly_type for reading in first.top}
    hours = {reading.reading_timestamp.hour for reading in first.others}
    assert hours == set(range(24))  # no rhythm of the ids shows


def test_before_the_marts_the_intermediate_tables_are_shown(postgres: Postgres, connection: psycopg.Connection) -> None:
    fill_tables(connection, Fleet(meters=3, days=5, gaps=False))
    record_run(connection, failed_step="ge_validate_staging")
    whole = read_report_data(postgres)
    connection.execute("drop table marts.mart_anomaly_scores, marts.mart_consumption_metrics")
    data = read_report_data(postgres)
    assert [day.consumption_kwh for day in data.days] == [pytest.approx(day.consumption_kwh) for day in whole.days]
    assert data.scores is None
    assert data.days[0].anomalies is None
    assert data.run is not None
    assert data.run.error is not None
    assert data.run.error.startswith("2 critical expectations not met")
    assert [step.status for step in data.steps] == ["succeeded"] * 4 + ["failed"]


def test_a_run_alone_is_a_report(bundled: Settings, connection: psycopg.Connection) -> None:
    connection.execute(
        "insert into quality.pipeline_runs (run_id, status, options, package_version, error) "
        "values ('r1', 'failed', '{}', '0.1.0', 'no such file')"
    )
    page = write_report(bundled).read_text(encoding="utf-8")
    assert "The first run has loaded nothing yet" in page
    assert "no such file" in page


def test_the_page_is_one_file_of_bounded_size_for_ten_thousand_meters(
    bundled: Settings, connection: psycopg.Connection
) -> None:
    fill_tables(connection, Fleet(meters=10_000, days=2, interval_minutes=480, names=("m" * 200, HOSTILE)))
    record_run(connection)
    written = write_report(bundled)
    assert written == bundled.reports_dir / "report.html"
    assert [path.name for path in bundled.reports_dir.iterdir()] == ["report.html"]
    assert written.stat().st_size < 2_000_000
    page = written.read_text(encoding="utf-8")
    assert "10,000 meters" in page
    assert HOSTILE not in page


def test_the_page_replaces_the_old_one_and_finds_data_docs(
    bundled: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    fill_tables(connection, Fleet(meters=2, days=3))
    docs = bundled.reports_dir / "data_docs" / "index.html"
    docs.parent.mkdir(parents=True)
    docs.write_text("docs")
    elsewhere = tmp_path / "for the director" / "page.html"
    elsewhere.parent.mkdir()
    elsewhere.write_text("old")
    assert write_report(bundled, elsewhere) == elsewhere
    page = elsewhere.read_text(encoding="utf-8")
    assert 'href="../home/reports/data_docs/index.html"' in page
    assert 'href="data_docs/index.html"' in write_report(bundled).read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_named(
    bundled: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    fill_tables(connection, Fleet(meters=1, days=1))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match=r"file/report\.html: the report cannot be written"):
        write_report(bundled, tmp_path / "file" / "report.html")


def test_a_wrong_bundle_in_the_cache_is_not_made_worse(bundled: Settings) -> None:
    (kept,) = (bundled.home / "cache").iterdir()
    assert vega_bundle(bundled.home / "cache") == kept.read_text(encoding="utf-8")
    json.dumps(kept.read_text(encoding="utf-8"))
    assert "</script" not in kept.read_text(encoding="utf-8")
