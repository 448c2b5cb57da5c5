"""Where settings come from, and what is said about wrong ones."""

from pathlib import Path

import pytest

from energy_iot.errors import UsageError
from energy_iot.settings import Settings, load_settings, setting_origins


def test_the_command_line_beats_the_environment_beats_dotenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ENERGY_IOT_TREES=20\nENERGY_IOT_RANDOM_SEED=5\nOTHER_PROGRAM=1\n")
    monkeypatch.setenv("ENERGY_IOT_TREES", "30")
    settings = load_settings(home=tmp_path / "here")
    assert (settings.trees, settings.random_seed, settings.home) == (30, 5, tmp_path / "here")
    origins = setting_origins(home=tmp_path / "here")
    assert [origins[name] for name in ("home", "trees", "random_seed", "contamination")] == [
        "command line",
        "environment",
        ".env",
        "default",
    ]


def test_a_blank_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENERGY_IOT_TREES", "")
    assert load_settings().trees == Settings.model_fields["trees"].default


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("TREES", "many", "trees: "),
        ("SCORE_THRESHOLD", "3", "score_threshold: "),
        ("TIME_ZONE", "Mars/Olympus", "Africa/Lagos"),
        ("EXPECTED_ANOMALY_SHARE", "0.2,0.1", "rising order"),
        ("EARLIEST_TIMESTAMP", "2001-01-01T00:00:00+02:00", "offset"),
        ("TREEES", "3", "ENERGY_IOT_TREEES: no such setting"),
        ("BACKEND", "server", "ENERGY_IOT_POSTGRES_DSN and ENERGY_IOT_CLICKHOUSE_URL"),
    ],
)
def test_a_wrong_value_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"ENERGY_IOT_{variable}", value)
    with pytest.raises(UsageError) as caught:
        load_settings()
    assert told in str(caught.value)


def test_bounds_come_from_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENERGY_IOT_EXPECTED_ANOMALY_SHARE", "0.01,0.05")
    assert load_settings().expected_anomaly_share == (0.01, 0.05)


def test_no_secret_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENERGY_IOT_POSTGRES_DSN", "postgresql://u:s3cret@h/d")
    assert "s3cret" not in f"{load_settings()!r} {load_settings().model_dump(mode='json')}"
