"""Logging as the committed configuration sets it up: lines, fields, secrets, size, and what goes wrong."""

import io
import json
import logging
import stat
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from rich.console import Console

from energy_iot import logs
from energy_iot.errors import StorageError, UsageError
from energy_iot.logs import (
    JsonLinesFile,
    JsonLinesFormatter,
    bind_run,
    bind_step,
    configure_logging,
    failure,
    find_secrets,
)
from energy_iot.reporting.progress import BarProgress
from energy_iot.settings import Settings

log = logging.getLogger("energy_iot.tests")
TRACEBACK = "Traceback (most recent call last):"
PASSWORD = "p\"ä\\s w@o/r%d'"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The configuration is the process's: give it back, and close the file."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    loggers = {name: logging.getLogger(name) for name in ("energy_iot", "alembic", "dbt", "great_expectations")}
    levels = {name: logger.level for name, logger in loggers.items()}
    yield
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)
    for name, logger in loggers.items():
        logger.setLevel(levels[name])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", kaggle_key=SecretStr("k-4711"))


def lines(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (settings.home / "logs" / "energy-iot.jsonl").read_text().splitlines()]


def test_each_line_says_when_where_and_in_which_run(settings: Settings) -> None:
    configure_logging(settings)
    before = datetime.now(UTC)
    log.info("outside")
    with bind_run("20261120T030000-abc"):
        log.info("run started: %s", "run", extra={"options": {"files": ["a.csv"]}})
        with bind_step("ingest_data"):
            log.info("done", extra={"rows_in": 3, "seconds": 0.25, "mode": None, "warnings": [], "share": float("nan")})
            elsewhere = threading.Thread(target=log.info, args=("from a thread of a library",))
            elsewhere.start()
            elsewhere.join()
        logging.getLogger("some.library").warning("it is\ntwo lines")
    log.info("after")

    written = lines(settings)
    assert [line["message"] for line in written] == [
        "outside",
        "run started: run",
        "done",
        "from a thread of a library",
        "it is\ntwo lines",
        "after",
    ]
    assert [line.get("run_id") for line in written] == [None, *["20261120T030000-abc"] * 4, None]
    assert [line.get("step") for line in written] == [None, None, "ingest_data", "ingest_data", None, None]
    assert written[1]["options"] == {"files": ["a.csv"]}
    assert {name: written[2].get(name, "left out") for name in ("rows_in", "seconds", "mode", "warnings", "share")} == {
        "rows_in": 3,
        "seconds": 0.25,
        "mode": "left out",
        "warnings": [],
        "share": "nan",
    }
    assert (written[4]["level"], written[4]["logger"]) == ("WARNING", "some.library")
    for line in written:
        assert next(iter(line)) == "timestamp"
        when = datetime.fromisoformat(line["timestamp"])
        assert when.utcoffset() == timedelta(0)
        assert before <= when <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, ["warning: careful", "error: bad", "warning: a library complains"]),
        ({"quiet": True}, ["error: bad"]),
        (
            {"verbose": True},
            ["info: fine", "warning: careful", "error: bad", TRACEBACK, "warning: a library complains"],
        ),
    ],
)
def test_the_terminal_shows_what_was_asked_for(
    settings: Settings, capsys: pytest.CaptureFixture[str], options: dict[str, bool], shown: list[str]
) -> None:
    configure_logging(settings, **options)
    log.info("fine")
    log.warning("careful")
    try:
        raise ValueError("the reason")
    except ValueError:
        log.exception("bad")
    log.error("told by the command line", extra={"on_terminal": False})
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("a library complains")
    logging.getLogger("great_expectations.render").error("an unexpected Exception occurred")

    output = capsys.readouterr()
    assert output.out == ""
    assert [line for line in output.err.splitlines() if line.startswith(("info", "warning", "error", "Trace"))] == shown
    assert "great_expectations" not in output.err
    written = lines(settings)
    assert [line["message"] for line in written] == [
        "fine",
        "careful",
        "bad",
        "told by the command line",
        "a library complains",
    ]
    assert written[2]["exception"].splitlines()[0] == TRACEBACK
    assert written[2]["exception"].endswith("ValueError: the reason")


def test_errors_are_told_whole_in_the_file_and_left_to_the_command_line(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(settings, verbose=True)
    log.error("step failed", **failure(StorageError("PostgreSQL is full", fix="free some space"), seconds=1.5))
    try:
        raise ValueError("unexpected")
    except ValueError as error:
        log.error("step failed", **failure(error))
    log.error("step interrupted", **failure(KeyboardInterrupt()))

    assert capsys.readouterr().err == ""
    ours, unexpected, interrupted = lines(settings)
    assert {name: ours[name] for name in ("error", "problem", "fix", "seconds")} == {
        "error": "StorageError",
        "problem": "PostgreSQL is full",
        "fix": "free some space",
        "seconds": 1.5,
    }
    assert unexpected["exception"].endswith("ValueError: unexpected")
    assert interrupted["error"] == "KeyboardInterrupt"
    assert not any("exception" in line for line in (ours, interrupted))


def test_no_secret_is_written_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dsn = f"postgresql://loader:{quote(PASSWORD, safe='')}@db.example:5432/meters"
    settings = Settings(
        home=tmp_path,
        postgres_dsn=SecretStr(dsn),
        clickhouse_url=SecretStr("http://writer:ch-secret@ch.example:8123"),
        kaggle_key=SecretStr("k-4711"),
    )
    configure_logging(settings, verbose=True)
    log.warning("connecting to %s, password %s or %r", dsn, PASSWORD, PASSWORD, extra={"dsn": dsn, "keys": ["k-4711"]})
    log.warning("libpq: %s", make_conninfo(dsn), extra={"nested": {"path": Path("/k-4711"), "set": {"ch-secret"}}})
    log.warning("some other https://user:unknown-secret@host/path")
    try:
        raise RuntimeError(
            f"cannot open {settings.clickhouse_url.get_secret_value() if settings.clickhouse_url else ''}"
        )
    except RuntimeError:
        log.exception("failed")

    shown = capsys.readouterr().err
    file = (tmp_path / "logs" / "energy-iot.jsonl").read_text()
    assert lines(settings.model_copy(update={"home": tmp_path}))[-1]["exception"].endswith("cannot open ***")
    for secret in (PASSWORD, quote(PASSWORD), quote(PASSWORD, safe=""), "ch-secret", "k-4711", "unknown-secret"):
        for text in (shown, file):
            assert secret not in text
            assert json.dumps(secret)[1:-1] not in text
    assert "https://user:***@host/path" in shown
    assert "Traceback" in shown


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20))
def test_any_password_is_masked_and_lines_stay_json(password: str) -> None:
    secret = SecretStr(f"http://u:{quote(password, safe='')}@ch:8123")
    before, logs._secrets = logs._secrets, find_secrets(Settings(clickhouse_url=secret))
    try:
        record = logging.LogRecord(
            "n", logging.INFO, "f.py", 1, "%s and %s", (password, secret.get_secret_value()), None
        )
        line = JsonLinesFormatter(["levelname", "message"]).format(record)
    finally:
        logs._secrets = before
    message = json.loads(line)["message"]
    assert "\n" not in line
    assert message.replace("***", "") == " and ".replace(password, "")


def test_a_connection_string_of_libpq_holds_a_password_too() -> None:
    dsn = make_conninfo(host="db", user="u", password="it's secret")
    assert "it's secret" in find_secrets(Settings(postgres_dsn=SecretStr(dsn)))


def test_the_file_is_bounded_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    handler = JsonLinesFile(str(path), maxBytes=2_000, backupCount=2)
    handler.setFormatter(JsonLinesFormatter(["message"]))
    for number in range(200):
        handler.emit(logging.LogRecord("n", logging.INFO, "f.py", 1, f"line {number}", (), None))
    handler.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["x.jsonl", "x.jsonl.1", "x.jsonl.2"]
    for file in files:
        assert 0 < file.stat().st_size <= 2_000
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = [json.loads(line)["message"] for file in reversed(files) for line in file.read_text().splitlines()]
    assert kept == [f"line {number}" for number in range(200 - len(kept), 200)]


def test_a_file_rotated_by_another_process_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    handler = JsonLinesFile(str(path), maxBytes=1_000_000, backupCount=2)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.emit(logging.LogRecord("n", logging.INFO, "f.py", 1, "before", (), None))
    path.rename(tmp_path / "x.jsonl.1")
    handler.emit(logging.LogRecord("n", logging.INFO, "f.py", 1, "after", (), None))
    handler.close()
    assert (path.read_text(), (tmp_path / "x.jsonl.1").read_text()) == ("after\n", "before\n")


def test_a_home_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "logs").write_text("a file where the folder should be")
    configure_logging(Settings(home=home))
    log.warning("careful")
    assert capsys.readouterr().err.splitlines() == [
        f"warning: no log file: {home / 'logs' / 'energy-iot.jsonl'}: File exists",
        "warning: careful",
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without space")
def test_a_full_disk_is_told_once(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(settings)
    path = settings.home / "logs" / "energy-iot.jsonl"
    path.unlink()
    path.symlink_to("/dev/full")
    for _ in range(3):
        log.info("much")
    assert capsys.readouterr().err == f"warning: no further lines in {path}: No space left on device\n"


def test_lines_do_not_tear_live_bars(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = BarProgress(Console(file=screen, force_terminal=True, width=100))
    configure_logging(settings)
    with progress.task("loading", total=10) as advance:
        advance(3)
        log.warning("the file [bold] has %d gaps", 2)
        advance(7)
    text = screen.getvalue()
    (torn,) = (line for line in text.split("\n") if "gaps" in line)
    # on a line of its own: what was drawn there is erased first
    assert torn.split("\x1b[2K")[-1].strip() == "warning: the file [bold] has 2 gaps"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("version: 1\nhandlers: {terminal: [\n", r"line 3, column 1: "),
        ("", "it holds no keys"),
        ("version: 1\nhandlers: [terminal]", "handlers: needs a name and settings for each"),
        ("version: 2\nhandlers: {}", "Unsupported version"),
        ("version: 1\nhandlers: {file: {class: no.such.Handler}}", r"'file'.*no\.such"),
        ("version: 1\nhandlers: {}\nroot: {level: LOUD}", "root.*LOUD"),
        ("version: 1\nhandlers: {}\nroot: {handlers: [nobody]}", "root.*nobody"),
    ],
)
def test_a_broken_configuration_names_file_and_place(
    settings: Settings, tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "my_logging.yml"
    path.write_text(content)
    with pytest.raises(UsageError, match=told) as raised:
        configure_logging(settings.model_copy(update={"logging_config": path}))
    assert str(path) in raised.value.problem
    assert "logging_config" in raised.value.fix


def test_a_missing_configuration_is_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yml does not configure logging: No such file"):
        configure_logging(settings.model_copy(update={"logging_config": tmp_path / "nowhere.yml"}))
