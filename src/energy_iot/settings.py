"""All settings, in one frozen object; nothing else reads the environment."""

import os
import tomllib
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import available_timezones

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from energy_iot.errors import UsageError

PROJECT_DIR = Path(__file__).resolve().parents[2]
CONFIG_FILE = PROJECT_DIR / "configs" / "energy_iot.toml"
ENV_PREFIX = "ENERGY_IOT_"


class Settings(BaseSettings):
    """Precedence: command line > ENERGY_IOT_* variables > .env > configs/energy_iot.toml > defaults."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_file=".env",
        env_ignore_empty=True,  # .env.example holds blanks
        toml_file=CONFIG_FILE,
        frozen=True,
        extra="ignore",  # .env also holds what containers need
        hide_input_in_errors=True,  # a bad DSN must not print itself
        validate_default=True,
    )

    # --- where things are -------------------------------------------------------------------------------------
    home: Path = Field(Path(".energy_iot"), description="State of the embedded databases, models and reports.")
    backend: Literal["embedded", "server"] = Field("embedded", description="Where PostgreSQL and ClickHouse run.")
    postgres_dsn: SecretStr | None = Field(
        None, description="PostgreSQL of server mode: postgresql://user:password@host:5432/database."
    )
    postgres_admin_dsn: SecretStr | None = Field(
        None, description="For `energy-iot init-db` only: who may create roles and schemas there, if not postgres_dsn."
    )
    clickhouse_url: SecretStr | None = Field(
        None, description="ClickHouse of server mode: http://user:password@host:8123."
    )
    clickhouse_database: str = Field(
        "energy_analytics", pattern=r"^[a-z_][a-z0-9_]*$", description="Database of the marts in ClickHouse."
    )
    clickhouse_http_port: int = Field(
        18123, ge=0, le=65535, description="Loopback port of `energy-iot serve clickhouse`; 0 takes a free one."
    )

    store_attempts: int = Field(
        4, ge=1, le=20, description="How often a step is tried when PostgreSQL or ClickHouse cannot be reached."
    )
    store_retry_seconds: float = Field(
        1, ge=0, le=60, description="Wait before the second try; doubled before each further one."
    )
    keep_runs_days: int = Field(
        400, ge=1, description="How long runs, steps and judgements are remembered; what later runs need stays."
    )
    logging_config: Path = Field(
        Path("configs/logging.yml"), description="Where log lines go; a relative path is below the project's folder."
    )

    # --- reading files ----------------------------------------------------------------------------------------
    time_zone: str = Field("UTC", description="Zone of timestamps that name none, unless the source says otherwise.")
    default_meter_id: str = Field("meter_1", min_length=1, description="Meter of files that name none.")
    default_interval_minutes: int = Field(
        30, gt=0, le=1440, description="Minutes between readings where neither the source nor the file tells."
    )
    max_rejected_share: float = Field(
        0.05, ge=0, le=1, description="A file with a larger share of unreadable rows is refused whole."
    )
    earliest_timestamp: datetime = Field(
        datetime(2000, 1, 1), description="Readings before this UTC instant are rejected."
    )
    max_future_hours: float = Field(24, ge=0, description="Readings later than now plus this are rejected.")

    kaggle_username: str | None = Field(None, description="Kaggle account for `energy-iot download kaggle`.")
    kaggle_key: SecretStr | None = Field(None, description="Its API key.")

    # --- features ---------------------------------------------------------------------------------------------
    history_days: int = Field(56, ge=7, le=366, description="How far back a meter's own hour-of-week history reaches.")

    power_factor: float = Field(
        1.0, gt=0, le=1, description="Mean power factor of the network's load, for its losses; often 0.85-0.95."
    )

    suspicion_look_back_days: int = Field(
        120, ge=56, le=732, description="How far back a meter's weeks are compared for the inspection list."
    )

    # --- data quality -----------------------------------------------------------------------------------------
    max_consumption_kwh: float = Field(
        100, gt=0, description="The most one interval can plausibly hold, kWh (the seeds' limit)."
    )
    min_temperature_c: float = Field(-50, description="Coldest plausible air temperature, degrees Celsius.")
    max_temperature_c: float = Field(60, description="Hottest plausible air temperature, degrees Celsius.")
    min_completeness: float = Field(
        0.9, ge=0, le=1, description="A lower share of received over expected readings is a warning."
    )
    max_null_share: float = Field(
        0.05, ge=0, le=1, description="A larger share of readings received without consumption is a warning."
    )
    min_voltage_v: float = Field(80, ge=0, description="Lowest plausible voltage of a working low-voltage supply, V.")
    max_voltage_v: float = Field(500, gt=0, description="Highest plausible voltage of a low-voltage supply, V.")

    # --- detection --------------------------------------------------------------------------------------------
    trees: int = Field(100, ge=10, le=1000, description="Trees of the Isolation Forest.")
    random_seed: int = Field(42, ge=0, description="Seed of sampling and of the forest.")
    training_rows: int = Field(200_000, ge=256, description="Most readings a model is trained on.")
    score_threshold: float = Field(0.6, gt=0, lt=1, description="A reading scoring above this is an anomaly.")
    contamination: float | None = Field(
        None, gt=0, le=0.5, description="Instead of score_threshold: the share of the training readings above it."
    )
    anomaly_type_z: float = Field(
        2.0, gt=0, description="An anomaly at least this many deviations off its hour of week is high or low."
    )
    expected_anomaly_share: Annotated[tuple[float, float], NoDecode] = Field(
        (0.005, 0.02), description="A share of anomalous readings outside these bounds is a warning."
    )

    # --- a new model ------------------------------------------------------------------------------------------
    promotion_max_score_shift: float = Field(
        0.25, gt=0, description="A new model is kept out whose scores shift more (population stability index),"
    )
    promotion_max_auc_loss: float = Field(
        0.02, ge=0, le=0.5, description="or that agrees less with labels or inspections, by so much ROC-AUC."
    )

    # --- inspections ------------------------------------------------------------------------------------------
    min_inspections: int = Field(
        200, ge=50, description="A ranking is learned from outcomes of at least so many inspected meters,"
    )
    min_inspected_thefts: int = Field(30, ge=10, description="of which so many must steal, and as many must not.")

    # --- orchestration and alerts -----------------------------------------------------------------------------
    landing_dir: Path = Field(
        Path("data/landing"), description="Folder that the daily run takes files from; relative to the project's."
    )
    landing_pattern: str = Field("*", min_length=1, description="Which of its files, such as readings_*.csv.gz.")
    late_hour_utc: int = Field(
        9, ge=6, le=29, description="A daily run of 06:00 that has not succeeded by then is told; 25 is 01:00 next day."
    )
    airflow_port: int = Field(18080, ge=0, le=65535, description="Loopback port of `energy-iot serve airflow`.")
    airflow_database_url: SecretStr | None = Field(
        None, description="Airflow's own PostgreSQL database; unset, one in the embedded server."
    )
    airflow_admin_password: SecretStr | None = Field(
        None, description="Password of Airflow's user admin; unset, made anew at each start."
    )
    superset_port: int = Field(18088, ge=0, le=65535, description="Loopback port of `energy-iot serve superset`.")
    superset_env: Path = Field(
        Path(".venv-superset"),
        description="Python environment that Superset is installed in; relative to the project's.",
    )
    superset_database_url: SecretStr | None = Field(
        None, description="Superset's own PostgreSQL database; unset, one in the embedded server."
    )
    superset_secret_key: SecretStr | None = Field(
        None, description="What Superset signs sessions with and encrypts what it stores; unset, made once, as the next"
    )
    superset_admin_password: SecretStr | None = Field(None, description="two: the password of its user admin, and")
    superset_analyst_password: SecretStr | None = Field(None, description="of its user analyst, who looks only.")
    superset_clickhouse_url: SecretStr | None = Field(
        None, description="ClickHouse of server mode for dashboards, as a user that may only read: clickhousedb://..."
    )
    alert_webhook_url: SecretStr | None = Field(
        None, description="Where a failed daily run is told, as Slack and its like take it: https://..."
    )
    alert_email_to: str | None = Field(None, description="Who gets a mail about it; commas between several.")
    alert_email_from: str = Field("energy-iot@localhost", description="Sender of these mails.")
    alert_smtp_url: SecretStr | None = Field(
        None, description="Through which server: smtp://user:password@host:587, or smtps:// for TLS from the start."
    )

    # --- monitoring -------------------------------------------------------------------------------------------
    metrics_port: int = Field(18181, ge=0, le=65535, description="Loopback port of `energy-iot metrics serve`.")
    prometheus_port: int = Field(19090, ge=0, le=65535, description="Of Prometheus in `energy-iot serve monitoring`;")
    alertmanager_port: int = Field(19093, ge=0, le=65535, description="of its Alertmanager;")
    grafana_port: int = Field(13000, ge=0, le=65535, description="of its Grafana, where Docker runs.")
    airflow_statsd_port: int = Field(
        18125, ge=1, le=65535, description="Loopback UDP port that Airflow sends its metrics to (StatsD)."
    )
    runbook_url: str | None = Field(
        None, description="Where people here read docs/05_runbook.md: the links of alerts lead there."
    )
    monitoring_postgres_dsn: SecretStr | None = Field(
        None, description="On a server: a user in energy_reader and pg_monitor, for Grafana and postgres_exporter."
    )
    clickhouse_metrics_address: str | None = Field(
        None, description="On a server: host:port where ClickHouse gives its own metrics, such as clickhouse:9363."
    )

    @field_validator("expected_anomaly_share", mode="before")
    @classmethod
    def _bounds_from_text(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("expected_anomaly_share")
    @classmethod
    def _bounds_in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 1:
            raise ValueError("needs two shares in rising order, such as 0.005,0.02")
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"'{value}' is no IANA time zone; an example is Africa/Lagos")
        return value

    @field_validator("earliest_timestamp")
    @classmethod
    def _naive_utc(cls, value: datetime) -> datetime:
        if value.tzinfo is not None:
            raise ValueError("is UTC already: leave the offset out")
        return value

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _server_has_addresses(self) -> Self:
        missing = [name for name in ("postgres_dsn", "clickhouse_url") if getattr(self, name) is None]
        if self.backend == "server" and missing:
            variables = " and ".join(ENV_PREFIX + name.upper() for name in missing)
            raise ValueError(f"backend 'server' needs {variables}; or set backend = 'embedded'")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of precedence, strongest first."""
        return init_settings, env_settings, dotenv_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def models_dir(self) -> Path:
        """Trained models and their cards."""
        return self.home / "models"

    @property
    def reports_dir(self) -> Path:
        """HTML reports and Data Docs."""
        return self.home / "reports"


def load_settings(**overrides: object) -> Settings:
    """Build the settings; `overrides` (from the command line) win, None means not given.

    Raises:
        UsageError: A value is out of range, inconsistent, or for no known setting; names each with the reason.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    known = set(Settings.model_fields)
    problems = [f"{origin}: no such setting" for name, origin in _named_settings() if name not in known]
    try:
        settings = Settings(**given)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()]
    if problems:
        raise UsageError(
            "the settings do not hold together:\n  " + "\n  ".join(problems),
            fix=f"correct it in {CONFIG_FILE.name} or in the {ENV_PREFIX}... variable of that name; "
            "configs/energy_iot.toml lists them all",
        )
    return settings


def setting_origins(**overrides: object) -> dict[str, str]:
    """Say for each setting where its value comes from: command line, environment, .env, the file or default."""
    origins = dict.fromkeys(Settings.model_fields, "default")
    for name, origin in _named_settings():  # weakest first
        origins[name] = origin.split(": ")[0]
    return origins | {name: "command line" for name, value in overrides.items() if value is not None}


def _named_settings() -> list[tuple[str, str]]:
    """Each (setting, "source: key") that the file, .env and the environment name, weakest source first."""
    with CONFIG_FILE.open("rb") if CONFIG_FILE.exists() else BytesIO() as file:
        named = [(key, f"{CONFIG_FILE.name}: {key}") for key in tomllib.load(file)]
    for source, variables in ((".env", dotenv_values(".env")), ("environment", os.environ)):
        named += [
            (key.upper().removeprefix(ENV_PREFIX).lower(), f"{source}: {key}")
            for key, value in variables.items()
            if key.upper().startswith(ENV_PREFIX) and value
        ]
    return named
