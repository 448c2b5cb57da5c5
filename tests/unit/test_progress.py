"""What long work shows on a terminal and in a log."""

from io import StringIO

import pytest
from rich.console import Console

from energy_iot.reporting.progress import BarProgress, LineProgress, Progress


def test_a_log_gets_plain_lines() -> None:
    out = StringIO()
    progress = LineProgress(Console(file=out, width=40), seconds_between=0)
    with progress.step("ingest_data", "Load [new] files"), progress.task("loading a.csv", 200, "bytes") as advance:
        advance(150)
    lines = out.getvalue().splitlines()
    assert lines[0] == "ingest_data: Load [new] files"
    assert lines[1] == "  loading a.csv: 150 of 200 bytes"
    assert lines[2].startswith("ingest_data: done in ")
    assert "\x1b" not in out.getvalue()


def test_a_terminal_keeps_a_line_for_each_finished_step() -> None:
    out = StringIO()
    progress = BarProgress(Console(file=out, force_terminal=True, width=100))
    with progress.step("ingest_data", "Load new files"), progress.task("loading a.csv", 200, "bytes") as advance:
        advance(150)
    assert "✓ ingest_data" in out.getvalue()
    assert "0 of 200 bytes" in out.getvalue()


def test_a_failed_step_is_not_shown_as_done() -> None:
    for make in (BarProgress, LineProgress):
        out = StringIO()
        progress = make(Console(file=out, force_terminal=make is BarProgress, width=100))
        with pytest.raises(ZeroDivisionError), progress.step("ingest_data", "Load new files"):
            raise ZeroDivisionError
        assert "✓" not in out.getvalue()
        assert "done" not in out.getvalue()


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    with progress.step("ingest_data", "Load new files"), progress.task("loading a.csv", 200) as advance:
        advance(150)
        progress.note("hello")
    assert capsys.readouterr() == ("", "")
