"""What containers are given: targets as texts, files that others of the group read, and secrets that must be there."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from energy_iot.errors import UsageError
from energy_iot.orchestration import airflow_servers
from energy_iot.orchestration.airflow_servers import PASSWORDS_FILE, USER, airflow_home
from energy_iot.serving import superset_server
from energy_iot.serving.containers import read_targets, run_airflow, run_superset, write_monitoring
from energy_iot.serving.superset_server import read_address, superset_home, write_state
from energy_iot.settings import Settings

DATABASE = SecretStr("postgresql+psycopg2://airflow:p@metadata/airflow")


class BecameError(Exception):
    """What the process would have become."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self.command, self.environment = command, environment


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Airflow's command, wherever the tests run; a process does not really become it."""

    def execve(_: str, command: list[str], environment: Mapping[str, str]) -> None:
        raise BecameError(command, environment)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(airflow_servers, "PROGRAM", Path(sys.executable))
    return Path(sys.executable)


def airflow(settings: Settings, *arguments: str) -> BecameError:
    with pytest.raises(BecameError) as caught:
        run_airflow(settings, arguments)
    return caught.value


def test_the_api_server_listens_and_knows_its_password(program: Path, tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path / "home",
        airflow_database_url=DATABASE,
        airflow_admin_password=SecretStr("chosen"),
        airflow_port=81,
    )
    became = airflow(settings, "api-server")
    assert became.command == [str(program), "api-server", "--workers", "1", "--host", "0.0.0.0", "--port", "81"]
    assert "chosen" not in str(became.command)
    assert became.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == DATABASE.get_secret_value()
    passwords = airflow_home(settings) / PASSWORDS_FILE
    assert json.loads(passwords.read_text()) == {USER: "chosen"}
    assert passwords.stat().st_mode & 0o777 == 0o600


def test_other_commands_of_airflow_are_passed_on(program: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", airflow_database_url=DATABASE)
    assert airflow(settings, "scheduler").command == [str(program), "scheduler"]
    assert airflow(settings, "db", "migrate").command == [str(program), "db", "migrate"]
    assert not (airflow_home(settings) / PASSWORDS_FILE).exists()


def test_a_variable_of_the_container_is_kept(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "statsd-exporter")
    became = airflow(Settings(home=tmp_path / "home", airflow_database_url=DATABASE), "scheduler")
    assert became.environment["AIRFLOW__METRICS__STATSD_HOST"] == "statsd-exporter"


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({}, "ENERGY_IOT_AIRFLOW_DATABASE_URL"),
        ({"airflow_database_url": DATABASE}, "ENERGY_IOT_AIRFLOW_ADMIN_PASSWORD"),
    ],
)
def test_a_missing_secret_is_named(program: Path, tmp_path: Path, asked: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=name):
        run_airflow(Settings(home=tmp_path / "home", **asked), ["api-server"])


def test_superset_needs_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superset_server, "is_installed", lambda _: True)
    with pytest.raises(UsageError, match="ENERGY_IOT_SUPERSET_SECRET_KEY"):
        run_superset(Settings(home=tmp_path / "home"))


def test_superset_takes_all_of_its_secrets_from_the_settings_or_none(tmp_path: Path) -> None:
    given = {f"superset_{name}": SecretStr(name) for name in ("secret_key", "admin_password", "analyst_password")}
    settings = Settings(home=tmp_path / "home", **given)
    superset_home(settings).mkdir(parents=True)
    write_state(settings, "postgresql+psycopg2://superset@metadata/superset")
    state = json.loads((superset_home(settings) / superset_server.STATE_FILE).read_text())
    assert state["secret_key"] == "secret_key"
    assert {user["username"]: user["password"] for user in state["users"]} == {
        "admin": "admin_password",
        "analyst": "analyst_password",
    }
    assert not (superset_home(settings) / superset_server.SECRETS_FILE).exists()
    with pytest.raises(UsageError, match="some are set and some not"):
        write_state(settings.model_copy(update={"superset_admin_password": None}), "postgresql://")
    with pytest.raises(UsageError, match="no Superset runs"):
        read_address(settings)


def test_targets_are_jobs_with_their_addresses() -> None:
    assert read_targets(["pipeline=metrics:18181", "node=n:1"]) == {"pipeline": "metrics:18181", "node": "n:1"}
    with pytest.raises(UsageError, match="no target: metrics:1, a=b"):
        read_targets(["x=y:1", "metrics:1", "a=b"])


def test_monitoring_is_written_for_its_programs(tmp_path: Path) -> None:
    targets = {"pipeline": "metrics:18181", "alertmanager": "alertmanager:9093"}
    settings = Settings(alert_webhook_url=SecretStr("https://hooks.example.org/T0"))
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "of_an_older_version.yml").write_text("groups: []")
    for _ in range(2):  # at each start
        write_monitoring(settings, tmp_path, targets)
    config = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    assert [job["job_name"] for job in config["scrape_configs"]] == ["pipeline", "alertmanager"]
    assert config["rule_files"] == [f"{tmp_path}/rules/*.yml"]
    assert sorted(file.name for file in (tmp_path / "rules").iterdir()) == ["alerts.yml", "recording.yml"]
    assert len(list((tmp_path / "dashboards").glob("*.json"))) == 3
    told = tmp_path / "alertmanager.yml"
    assert "hooks.example.org" in told.read_text()
    assert told.stat().st_mode & 0o777 == 0o640
    with pytest.raises(UsageError, match="alertmanager"):
        write_monitoring(settings, tmp_path, {"pipeline": "metrics:18181"})
