"""The commented settings file and .env.example say what the settings are."""

import re
import tomllib
from datetime import datetime
from pathlib import Path

import pytest
from dotenv import dotenv_values

from energy_iot.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
LINES = [
    line.removeprefix("# ")
    for line in (ROOT / "configs" / "energy_iot.toml").read_text().splitlines()
    if re.match(r"# \w+ = ", line)
]
UNSET = {
    "postgres_dsn",
    "postgres_admin_dsn",
    "clickhouse_url",
    "kaggle_username",
    "kaggle_key",
    "contamination",
    "airflow_database_url",
    "superset_database_url",
    "airflow_admin_password",
    "superset_secret_key",
    "superset_admin_password",
    "superset_analyst_password",
    "superset_clickhouse_url",
    "alert_webhook_url",
    "alert_email_to",
    "alert_smtp_url",
    "runbook_url",
    "monitoring_postgres_dsn",
    "clickhouse_metrics_address",
}  # the file shows an example


def test_the_file_names_every_setting_once() -> None:
    names = [line.split(" = ")[0] for line in LINES]
    assert names == list(Settings.model_fields)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split(" = ")[0])
def test_each_line_shows_the_default(line: str) -> None:
    ((name, shown),) = tomllib.loads(line).items()
    default = Settings.model_fields[name].default
    if name in UNSET:
        assert default is None
        return
    if isinstance(shown, list):
        shown = tuple(shown)
    assert shown == (str(default) if isinstance(default, Path) else default)
    assert not isinstance(shown, datetime) or shown.tzinfo is None


def test_env_example_names_settings_and_holds_no_value() -> None:
    """Of native commands; tests/contracts/test_compose_files.py looks at what is for containers."""
    variables = {
        name: value for name, value in dotenv_values(ROOT / ".env.example").items() if name.startswith(ENV_PREFIX)
    }
    assert variables
    assert not any(variables.values())
    assert {name.removeprefix(ENV_PREFIX).lower() for name in variables} <= set(Settings.model_fields)


def test_every_secret_is_in_env_example() -> None:
    secrets = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secrets
    assert {ENV_PREFIX + name.upper() for name in secrets} <= set(dotenv_values(ROOT / ".env.example"))
