"""What the runbook tells people to type, typed: each command of ours, on a small home with a bad line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from docs.tools.markdown_files import PROJECT_DIR
from energy_iot.cli import app
from energy_iot.settings import Settings
from tests.documented_commands import documented_commands

pytestmark = pytest.mark.heavy

# these run until they are stopped, or need servers: another test has them
ELSEWHERE = {
    "init-db": "tests/e2e/test_day_to_day.py",
    "metrics serve": "tests/e2e/test_monitoring.py",
    "serve monitoring": "tests/e2e/test_monitoring.py",
    "serve clickhouse": "tests/e2e/test_day_to_day.py",
    "trigger": "tests/e2e/test_airflow.py",
}
PLACEHOLDERS = {"NAME": "readings.csv", "FOLDER": "landing"}
TYPED = [
    command.text.removeprefix("energy-iot ")
    for command in documented_commands(PROJECT_DIR / "docs/05_runbook.md")
    if command.words[0] == "energy-iot"
]
RUN_HERE = [text for text in TYPED if not text.startswith(tuple(ELSEWHERE))]
# as a reader comes to them: a model to compare with, and at last the file that is wrong
RUN_HERE.sort(key=lambda text: (text.startswith("forget"), text == "compare-models"))


def test_what_is_not_run_here_is_run_by_another_test() -> None:
    assert TYPED
    for text in set(TYPED) - set(RUN_HERE):
        name = next(name for name in ELSEWHERE if text.startswith(name))
        test = (PROJECT_DIR / ELSEWHERE[name]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in test for word in name.split()), text


def test_runbook(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.postgres_dsn is not None
    monkeypatch.setenv("ENERGY_IOT_HOME", str(settings.home))
    monkeypatch.setenv("ENERGY_IOT_POSTGRES_DSN", settings.postgres_dsn.get_secret_value())
    (tmp_path / "landing").mkdir()
    lines = [
        f"m{meter},2025-01-{day:02} {hour:02}:00:00,{0.3 + 0.2 * meter + 0.05 * ((hour * 7 + day) % 11):.3f}"
        for meter in (1, 2)
        for day in range(1, 20)
        for hour in range(24)
    ]
    (tmp_path / "landing/readings.csv").write_text(
        "\n".join(["meter_id,timestamp,consumption_kwh", *lines, "m1,2025-01-20 00:00:00,half a kilowatt-hour"])
    )
    assert len(RUN_HERE) > 9
    for text in ("run landing", *RUN_HERE):
        words = [PLACEHOLDERS.get(word, word) for word in text.split()]
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, f"{text}: {done.output}"
        if text.startswith("rejects export"):
            export = Path(words[-1])
            export.write_text(export.read_text().replace("half a kilowatt-hour", "0.5"))
