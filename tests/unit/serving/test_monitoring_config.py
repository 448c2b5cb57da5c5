"""The configuration that monitoring is started with: targets of this machine, receivers of the settings."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from energy_iot.errors import UsageError
from energy_iot.serving.grafana import container_arguments, container_environment
from energy_iot.serving.monitoring_config import (
    MONITORING_DIR,
    alertmanager_config,
    dashboard_text,
    prometheus_config,
    read_config,
    rules_config,
)
from energy_iot.settings import Settings

AMTOOL = shutil.which("amtool")


def alertmanager(**asked: Any) -> dict[str, Any]:
    return alertmanager_config(read_config("alertmanager/alertmanager.yml"), Settings(**asked), interval_seconds=15)


def test_only_jobs_with_a_target_are_left(tmp_path: Path) -> None:
    template = read_config("prometheus/prometheus.yml")
    targets = {"pipeline": "127.0.0.1:1", "alertmanager": "127.0.0.1:2", "airflow": "127.0.0.1:3"}
    config = prometheus_config(template, targets, machine="here", rules=tmp_path, interval_seconds=3)
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert {name: job["static_configs"][0]["targets"] for name, job in jobs.items()} == {
        name: [target] for name, target in targets.items()
    }
    assert {job["static_configs"][0]["labels"]["instance"] for job in jobs.values()} == {"here"}
    assert jobs["airflow"]["metric_relabel_configs"]
    assert config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["127.0.0.1:2"]
    assert config["global"] == {"scrape_interval": "3s", "scrape_timeout": "2400ms", "evaluation_interval": "3s"}
    assert read_config("prometheus/prometheus.yml") == template


def test_the_usual_intervals_are_those_of_the_files(tmp_path: Path) -> None:
    template = read_config("prometheus/prometheus.yml")
    config = prometheus_config(template, {"alertmanager": "a:1"}, machine="here", rules=tmp_path, interval_seconds=15)
    assert config["global"] == {**template["global"], "scrape_timeout": "12000ms"}
    assert alertmanager()["route"]["group_interval"] == "300s"


def test_links_lead_to_where_the_runbook_is_read() -> None:
    template = read_config("prometheus/rules/alerts.yml")
    assert rules_config(template, Settings()) == template
    config = rules_config(template, Settings(runbook_url="https://wiki/runbook"))
    links = {rule["annotations"]["runbook_url"] for group in config["groups"] for rule in group["rules"]}
    assert "https://wiki/runbook#runfailed" in links
    assert all(link.startswith("https://wiki/runbook#") for link in links)
    dashboard = (MONITORING_DIR / "grafana" / "dashboards" / "pipeline.json").read_text()
    assert dashboard_text(dashboard, Settings()) == dashboard
    assert '"url": "https://wiki/runbook"' in dashboard_text(dashboard, Settings(runbook_url="https://wiki/runbook"))


def test_nobody_is_told_until_an_address_is_set() -> None:
    assert alertmanager()["receivers"] == [{"name": "operators"}]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.org", {"smarthost": "mail.example.org:587", "require_tls": False}),
        (
            "smtp://user%40x:p%2Fw@mail:25",
            {"smarthost": "mail:25", "require_tls": True, "auth_username": "user@x", "auth_password": "p/w"},
        ),
        ("smtps://mail", {"smarthost": "mail:465", "require_tls": True}),
    ],
)
def test_mail_goes_through_the_server_of_the_settings(url: str, expected: dict[str, Any], tmp_path: Path) -> None:
    config = alertmanager(alert_email_to="a@b", alert_smtp_url=url, alert_webhook_url="https://hooks/x")
    (receiver,) = config["receivers"]
    (mail,) = receiver["email_configs"]
    assert {name: mail.get(name) for name in expected} == expected
    assert ("auth_password" in mail) == ("auth_password" in expected)
    assert receiver["slack_configs"][0]["api_url"] == "https://hooks/x"
    if AMTOOL:  # Alertmanager's own opinion
        file = tmp_path / "alertmanager.yml"
        file.write_text(yaml.safe_dump(config))
        done = subprocess.run([AMTOOL, "check-config", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("url", "problem"), [(None, "no smtp://"), ("http://mail", "no smtp://"), ("smtps://mail:2465", "names 2465")]
)
def test_a_mail_server_of_no_use_is_refused(url: str | None, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        alertmanager(alert_email_to="a@b", alert_smtp_url=url)


def test_grafana_is_given_secrets_by_name_only(tmp_path: Path) -> None:
    database = f"host={tmp_path} dbname=energy_iot user=reader password=pa55"
    environment = container_environment({"grafana": 1, "prometheus": 2}, "w0rd", database)
    arguments = container_arguments(environment, database, dashboards=tmp_path / "dashboards")
    assert environment["POSTGRES_ADDRESS"] == str(tmp_path)
    assert environment["POSTGRES_PASSWORD"] == "pa55"
    assert not any(secret in argument for argument in arguments for secret in ("pa55", "w0rd"))
    assert f"{tmp_path}:{tmp_path}:ro" in arguments
    assert f"{tmp_path}/dashboards:/etc/grafana/dashboards:ro" in arguments
    over_tcp = container_environment({"grafana": 1, "prometheus": 2}, "x", "postgresql://u:p@db:5433/energy")
    assert over_tcp["POSTGRES_ADDRESS"] == "db:5433"
