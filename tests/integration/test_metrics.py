"""Metrics of stored facts: of runs that went well, failed or had nothing to do, and of a database that is away."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from energy_iot.errors import StorageError, UsageError
from energy_iot.reporting import metrics
from energy_iot.reporting.metrics import PipelineCollector, make_registry, write_textfile
from energy_iot.settings import Settings
from energy_iot.storage.changes import DerivedState, record_change, write_state
from energy_iot.storage.postgres import Postgres

Samples = dict[tuple[str, ...], float]
PROMTOOL = shutil.which("promtool")
HOUR = 3600


def sampled(settings: Settings) -> Samples:
    """Values by name and labels, energy_iot_ left out of the names."""
    text = generate_latest(make_registry(settings)).decode()
    return {
        (sample.name.removeprefix("energy_iot_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Records:
    """Writes what runs store."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._runs = 0

    def run(self, status: str, *, hours_ago: float, steps: dict[str, str], **details: dict[str, object]) -> str:
        """A run of 10 min whose steps took 60 s each and read 200 rows."""
        self._runs += 1
        name = f"run{self._runs}"
        ended = None if status == "running" else hours_ago
        with self._postgres.connect() as connection:
            connection.execute(
                "insert into quality.pipeline_runs (run_id, status, started_at, ended_at, options, package_version) "
                "select %s, %s, now() at time zone 'utc' - make_interval(secs => %s) - interval '10 minutes', "
                "now() at time zone 'utc' - make_interval(secs => %s), '{}', '0'",
                (name, status, hours_ago * HOUR, None if ended is None else ended * HOUR),
            )
            for step, of_step in steps.items():
                connection.execute(
                    "insert into quality.step_runs (run_id, step, status, started_at, ended_at, rows_in, rows_out, "
                    "warnings, details) values (%s, %s, %s, now() at time zone 'utc', "
                    "now() at time zone 'utc' + interval '60 seconds', 200, 100, '[\"w\"]', %s)",
                    (name, step, of_step, Jsonb(details.get(step, {}))),
                )
        return name

    def judge(self, run: str, suite: str, *, success: bool, severity: str = "critical") -> None:
        with self._postgres.connect() as connection:
            connection.execute(
                "insert into quality.validation_results (run_id, suite, expectation, severity, success) "
                "values (%s, %s, 'expect_x', %s, %s)",
                (run, suite, severity, success),
            )


@pytest.fixture
def records(postgres: Postgres) -> Records:
    return Records(postgres)


def test_before_the_first_run_there_is_little_to_say(settings: Settings, postgres: Postgres) -> None:
    found = sampled(settings)
    assert found["up",] == 1
    assert found["running_runs",] == found["loaded_readings",] == 0
    names = {name for name, *_ in found}
    assert not names & {"last_success_timestamp_seconds", "last_run_status", "newest_reading_timestamp_seconds",
                        "anomaly_ratio", "model_version", "clickhouse_up"}  # fmt: skip


def test_the_last_success_is_one_of_the_whole_pipeline(settings: Settings, records: Records) -> None:
    """With all steps, or with nothing to do; a step alone, or a part of them, is not."""
    whole = {"check_source": "succeeded", "sync_to_clickhouse": "succeeded"}
    now = time.time()
    records.run("succeeded", hours_ago=30, steps=whole)
    assert sampled(settings)["last_success_timestamp_seconds",] == pytest.approx(now - 30 * HOUR, abs=60)
    records.run("succeeded", hours_ago=20, steps={"check_source": "skipped"})
    assert sampled(settings)["last_success_timestamp_seconds",] == pytest.approx(now - 20 * HOUR, abs=60)
    records.run("succeeded", hours_ago=10, steps={"ge_validate_staging": "succeeded"})
    records.run("succeeded", hours_ago=9, steps={"check_source": "succeeded", "ingest_data": "succeeded"})
    records.run("failed", hours_ago=8, steps=whole)
    records.run("running", hours_ago=0, steps={"check_source": "running"})
    found = sampled(settings)
    assert found["last_success_timestamp_seconds",] == pytest.approx(now - 20 * HOUR, abs=60)
    assert (found["last_run_status", "failed"], found["last_run_status", "succeeded"]) == (1, 0)
    assert found["last_run_duration_seconds",] == pytest.approx(600)
    assert (found["recent_runs", "succeeded"], found["recent_runs", "failed"]) == (4, 1)
    assert found["running_runs",] == 1


def test_a_step_with_nothing_to_do_keeps_the_figures_of_the_time_before(settings: Settings, records: Records) -> None:
    records.run("succeeded", hours_ago=3, steps={"ml_score": "succeeded"})
    records.run("succeeded", hours_ago=2, steps={"ml_score": "skipped"})
    found = sampled(settings)
    assert found["step_status", "skipped", "ml_score"] == 1
    assert found["step_status", "succeeded", "ml_score"] == 0
    assert found["step_duration_seconds", "ml_score"] == pytest.approx(60)
    assert (found["step_rows", "in", "ml_score"], found["step_rows", "out", "ml_score"]) == (200, 100)
    assert found["step_warnings", "ml_score"] == 1


def test_figures_of_the_steps_become_shares(settings: Settings, records: Records) -> None:
    records.run(
        "succeeded",
        hours_ago=1,
        steps=dict.fromkeys(("ingest_data", "dbt_run_intermediate", "ml_score"), "succeeded"),
        ingest_data={"rejected": 5, "late": 7},
        dbt_run_intermediate={
            "latest_day": {"meters": 4, "silent_meters": 1, "readings": 144, "expected_readings": 192}
        },
        ml_score={"latest": {"days": 30, "readings": 1000, "anomalies": 13}, "scored_now": {"drift": 0.31}},
    )
    records.run("failed", hours_ago=0.5, steps={"ingest_data": "failed"}, ingest_data={"rejected": 99})
    found = sampled(settings)
    assert found["ingest_rejected_ratio",] == 5 / 200
    assert (found["ingest_late_readings",], found["latest_day_silent_meters",]) == (7, 1)
    assert found["latest_day_completeness_ratio",] == 0.75
    assert found["anomaly_ratio",] == 0.013
    assert (found["expected_anomaly_ratio", "lower"], found["expected_anomaly_ratio", "upper"]) == (0.005, 0.02)
    assert found["score_stability_index",] == 0.31


def test_a_judgement_that_was_overtaken_does_not_count(
    settings: Settings, records: Records, postgres: Postgres
) -> None:
    """What stopped the run was taken out, and the gate has passed with nothing left to judge."""
    suite = "raw_readings_suite"
    first = records.run("succeeded", hours_ago=3, steps={})
    records.judge(first, suite, success=True)
    records.judge(first, suite, success=False, severity="warning")
    stopped = records.run("failed", hours_ago=2, steps={})
    records.judge(stopped, suite, success=False)
    found = sampled(settings)
    assert (found["validation_success_ratio", suite], found["validation_failed_rules", "critical", suite]) == (0, 1)
    with postgres.connect() as connection:
        write_state(connection, DerivedState("ge_validate_staging", 1, "f"))
    found = sampled(settings)
    assert (found["validation_success_ratio", suite], found["validation_failed_rules", "critical", suite]) == (0.5, 0)
    assert found["validation_failed_rules", "warning", suite] == 1
    assert found["expectation_success_ratio", "expect_x", suite] == 0.5


def test_backlog_and_published_rows(settings: Settings, postgres: Postgres) -> None:
    with postgres.connect() as connection:
        for number in range(3):
            change = record_change(connection, "load", file_id=number, file_name="f", sha256=str(number), run_id=None)
        write_state(connection, DerivedState("mart_losses", change, "f"))
        write_state(connection, DerivedState("clickhouse.losses", change - 2, "f", 12))
    found = sampled(settings)
    assert (found["backlog_changes", "mart_losses"], found["backlog_changes", "clickhouse.losses"]) == (0, 2)
    assert found["published_rows", "losses"] == 12


def test_without_postgresql_it_says_so(settings: Settings, tmp_path: Path) -> None:
    away = settings.model_copy(update={"postgres_dsn": SecretStr(f"host={tmp_path} dbname=none")})
    found = sampled(away)
    assert found["up",] == 0
    assert {name for name, *_ in found} == {"up", "build_info"}


def test_the_file_is_whole_and_prometheus_has_nothing_to_say(
    settings: Settings, records: Records, tmp_path: Path
) -> None:
    run = records.run("succeeded", hours_ago=1, steps={"check_source": "succeeded", "sync_to_clickhouse": "succeeded"})
    records.judge(run, "raw_readings_suite", success=True)
    file = tmp_path / "energy_iot.prom"
    write_textfile(settings, file)
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.glob("*.prom*")] == [file.name]
    assert b"energy_iot_up 1.0" in file.read_bytes()
    if PROMTOOL:
        done = subprocess.run([PROMTOOL, "check", "metrics"], input=file.read_bytes(), capture_output=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_a_file_that_cannot_be_written_is_an_error(settings: Settings, postgres: Postgres, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_textfile(settings, tmp_path / "nowhere" / "m.prom")


@pytest.fixture
def served(settings: Settings, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The endpoint, in a thread: what a signal does is done by an event."""
    stop, ready, urls = threading.Event(), threading.Event(), []

    class Asked:
        def __enter__(self) -> threading.Event:
            return stop

        def __exit__(self, *_: object) -> None:
            pass

    def started(url: str) -> None:
        urls.append(url)
        ready.set()

    monkeypatch.setattr(metrics, "asked_to_stop", Asked)
    thread = threading.Thread(target=metrics.serve, args=(settings,), kwargs={"port": 0, "started": started})
    thread.start()
    assert ready.wait(30)
    yield urls[0]
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(httpx.ConnectError):
        httpx.get(urls[0])


def test_the_endpoint_answers_many_at_once(served: str) -> None:
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(httpx.get(served, timeout=60))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all("energy_iot_up 1.0" in answer.text for answer in answers)
    assert "process_resident_memory_bytes" in answers[0].text
    assert answers[0].headers["Content-Type"].startswith("text/plain")


def test_a_port_that_is_taken_is_an_error(served: str, settings: Settings) -> None:
    port = int(served.rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(StorageError, match="is taken"):
        metrics.serve(settings, port=port, started=print)


def test_the_reason_is_logged_once(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    away = settings.model_copy(update={"postgres_dsn": SecretStr(f"host={tmp_path} dbname=none")})
    collector = PipelineCollector(away)
    with caplog.at_level("INFO", logger=metrics.__name__):
        for _ in range(3):
            list(collector.collect())
    assert len(caplog.records) == 1
