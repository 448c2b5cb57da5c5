"""Real Prometheus, Alertmanager and exporters over a real pipeline: a stale day, a failed run, good runs."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import clickhouse_connect
import psutil
import pytest

from energy_iot.errors import StorageError, UsageError
from energy_iot.serving import monitoring as monitoring_module
from energy_iot.serving.front_file import WRITER, find_front
from energy_iot.serving.local_server import free_port
from energy_iot.serving.monitoring import find_programs, monitoring_home, read_address
from monitoring.grafana.queries import Question, questions
from tests.live_monitoring import (
    INTERVAL_SECONDS,
    MISSING,
    NOT_INSTALLED,
    LiveMonitoring,
    live_monitoring,
)
from tests.live_server import command, serving
from tests.receivers import mail_server, webhook
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.xdist_group("monitoring"),
    pytest.mark.skipif(bool(MISSING), reason=NOT_INSTALLED),
]

HEADER = "meter_id,timestamp,consumption_kwh\n"
METERS = 6
HALF_HOUR = timedelta(minutes=30)
TODAY = datetime.now(UTC).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
WITHOUT_DATA_HERE = {"Processor of containers", "Memory of containers"}  # cAdvisor comes as a container only


def lines(first: datetime, days: int) -> list[str]:
    """Half-hours of a few meters, with a daily shape."""
    return [
        f"m{meter},{instant:%Y-%m-%d %H:%M},{0.2 + (instant.hour * 7 + instant.day * meter) % 11 / 20:.3f}"
        for meter in range(METERS)
        for step in range(days * 48)
        for instant in (first + step * HALF_HOUR,)
    ]


def run(home: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(home, *arguments), capture_output=True, text=True, timeout=600)


@dataclass
class Story:
    """What happened, in order, and what was seen of it.

    Attributes:
        live: The programs.
        messages: What the webhook got.
        mails: What the mail server got.
        began: When monitoring began (Unix time, s).
    """

    live: LiveMonitoring
    messages: list[dict[str, str]]
    mails: list[str]
    began: float

    def wait_until(self, name: str, *, fires: bool) -> float:
        started = time.monotonic()
        state = "fire" if fires else "end"
        wait_for(lambda: (name in self.live.alerts()) is fires, f"{state} of {name}", seconds=60)
        return time.monotonic() - started

    def told(self, status: str, name: str) -> bool:
        return any(f"{status}: {name}" in str(message) for message in self.messages)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A history that ends three days ago; monitoring and the front of ClickHouse begin."""
    folder = tmp_path_factory.mktemp("monitored")
    home, history = folder / "home", folder / "history.csv"
    history.write_text(HEADER + "\n".join(lines(TODAY - timedelta(days=13), 10)) + "\n")
    with webhook() as (url, messages), mail_server() as (smtp, mails), serving(home, "clickhouse"):
        done = run(home, "run", history)
        assert done.returncode == 0, done.stderr
        with live_monitoring(
            home,
            ENERGY_IOT_ALERT_WEBHOOK_URL=url,
            ENERGY_IOT_ALERT_EMAIL_TO="losses@example.org",
            ENERGY_IOT_ALERT_SMTP_URL=smtp,
            ENERGY_IOT_AIRFLOW_STATSD_PORT=str(free_port(0)),
            ENERGY_IOT_RUNBOOK_URL="https://wiki.example.org/runbook",
        ) as live:
            yield Story(live, messages, mails, time.time())


def test_all_targets_are_up_and_the_rules_loaded(story: Story) -> None:
    address = read_address(story.live.settings)
    assert {"pipeline up", "prometheus up", "alertmanager up", "node up", "postgres up", "airflow up"} <= {
        part.strip() for line in story.live.said.splitlines() if "targets:" in line for part in line[8:].split(",")
    }, story.live.said
    assert address.url("prometheus") in story.live.said
    targets = story.live.api("targets")["activeTargets"]
    assert {target["labels"]["job"] for target in targets} == set(address.ports)
    assert all(target["scrapeUrl"].startswith("http://127.0.0.1:") for target in targets)
    assert "rules loaded: 22" in story.live.said
    listening = {
        connection.laddr.ip
        for process in psutil.Process(story.live.process.pid).children(recursive=True)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    secret = monitoring_home(story.live.settings) / "alertmanager.yml"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert "/services/T0/secret" in secret.read_text()


def test_a_stale_day_is_told(story: Story) -> None:
    """To the webhook and by mail, with a link to what to do."""
    story.wait_until("NoNewData", fires=True)
    wait_for(lambda: story.told("FIRING", "NoNewData"), "message to the webhook", seconds=30)
    (message,) = [message for message in story.messages if "NoNewData" in str(message)][:1]
    assert "https://wiki.example.org/runbook#nonewdata" in str(message)
    wait_for(lambda: any("FIRING: NoNewData" in mail for mail in story.mails), "mail", seconds=30)
    assert "RunFailed" not in story.live.alerts()


def test_a_failed_run_is_told_within_two_evaluations(story: Story, tmp_path: Path) -> None:
    """Negative energy stops the run before anything is published; lines that cannot be read are told too."""
    spoilt = lines(TODAY - timedelta(days=3), 1)
    spoilt[:12] = [f"m0,{TODAY - timedelta(days=3):%Y-%m-%d} {hour:02}:00,not a number" for hour in range(12)]
    spoilt[20:60] = [line.rsplit(",", 1)[0] + ",-5" for line in spoilt[20:60]]
    bad = tmp_path / "bad.csv"
    bad.write_text(HEADER + "\n".join(spoilt) + "\n")
    done = run(story.live.home, "run", bad)
    assert done.returncode == 4, done.stdout + done.stderr
    # after the end of the run a scrape, then an evaluation: two intervals; the command itself takes a moment to end
    assert story.wait_until("RunFailed", fires=True) <= 2 * INTERVAL_SECONDS + 1
    story.wait_until("CriticalRuleBroken", fires=True)
    story.wait_until("RejectedShareHigh", fires=True)
    wait_for(lambda: story.told("FIRING", "RunFailed"), "message of the failure", seconds=60)
    assert story.live.value('energy_iot_step_status{step="ge_validate_staging", status="failed"}') == 1
    assert story.live.value("max(energy_iot_backlog_changes)") == 1


def test_what_is_mended_is_told_too(story: Story, tmp_path: Path) -> None:
    done = run(story.live.home, "forget", "--file", "bad.csv")
    assert done.returncode == 0, done.stderr
    story.wait_until("RunFailed", fires=False)
    story.wait_until("CriticalRuleBroken", fires=False)
    fresh = tmp_path / "fresh.csv"
    fresh.write_text(HEADER + "\n".join(lines(TODAY - timedelta(days=3), 3)) + "\n")
    done = run(story.live.home, "run", fresh)
    assert done.returncode == 0, done.stderr
    for name in ("NoNewData", "RejectedShareHigh"):
        story.wait_until(name, fires=False)
    for name in ("RunFailed", "NoNewData"):
        wait_for(lambda name=name: story.told("RESOLVED", name), f"resolution of {name}", seconds=90)
    assert story.live.value("energy_iot_latest_day_completeness_ratio") == 1
    assert story.live.value("max(energy_iot_backlog_changes)") == 0
    assert story.live.value('energy_iot_recent_runs{status="failed"}') == 1


def test_rows_that_are_gone_from_clickhouse_are_seen(story: Story) -> None:
    address = find_front(story.live.home)
    assert address is not None
    client = clickhouse_connect.get_client(dsn=address.url(WRITER), database=story.live.settings.clickhouse_database)
    client.command("delete from anomaly_scores where meter_id = 'm0'")
    gone = 'energy_iot:sync_difference:rows{table="anomaly_scores"} > 0'
    wait_for(lambda: story.live.value(gone), "difference", seconds=30)
    wait_for(lambda: "SyncMismatch" in story.live.alerts("pending"), "pending alert", seconds=30)
    done = run(story.live.home, "sync", "--full-refresh")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: story.live.value(gone) is None, "end of the difference", seconds=30)


def test_what_airflow_sends_arrives_under_the_names_of_the_dashboards(story: Story) -> None:
    port = int(psutil.Process(story.live.process.pid).environ()["ENERGY_IOT_AIRFLOW_STATSD_PORT"])
    statsd = pytest.importorskip("statsd", reason="what Airflow sends with is not installed: make install-airflow")
    airflow = statsd.StatsClient("127.0.0.1", port, prefix="airflow")
    for counter in ("scheduler_heartbeat", "ti_successes", "ti_failures"):
        airflow.incr(counter)
    for gauge in ("open_slots", "running_tasks", "queued_tasks"):
        airflow.gauge(f"executor.{gauge}", 3)
    airflow.close()
    wait_for(lambda: story.live.value("airflow_executor_open_slots") == 3, "Airflow's slots", seconds=30)
    wait_for(lambda: story.live.value("airflow_ti_successes") == 1, "Airflow's tasks", seconds=30)


@pytest.mark.parametrize("question", questions(), ids=str)
def test_every_panel_has_data(story: Story, question: Question) -> None:
    def ask() -> list[dict[str, Any]]:
        return story.live.sources.ask(question, start=story.began - 3600, end=time.time())

    if question.panel["title"] in WITHOUT_DATA_HERE:
        assert ask() == []  # it parses
    else:
        wait_for(ask, f"data of {question}", seconds=30)  # a rate needs two scrapes


def test_a_target_that_died_is_seen_and_ends_the_command(tmp_path: Path) -> None:
    """A service manager then starts it again."""
    with live_monitoring(tmp_path / "home") as live:
        (node,) = [
            child for child in psutil.Process(live.process.pid).children() if "node-exporter" in child.cmdline()[0]
        ]
        others = [child for child in psutil.Process(live.process.pid).children(recursive=True) if child != node]
        node.kill()
        assert live.process.wait(60) == StorageError.exit_code
        _, alive = psutil.wait_procs(others, timeout=10)
        assert alive == []
        with pytest.raises(UsageError, match="no monitoring runs"):
            read_address(live.settings)


def test_what_is_not_installed_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(monitoring_module, "MORE_PLACES", str(tmp_path))
    with pytest.raises(UsageError, match="apt-get install --no-install-recommends prometheus prometheus-alertmanager"):
        find_programs()


def test_only_one_runs_on_a_home(story: Story) -> None:
    done = run(story.live.home, "serve", "monitoring")
    assert done.returncode == StorageError.exit_code
    assert "already runs" in done.stderr
