"""Output for a terminal is whole at the width that terminals have."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from energy_iot.ml.evaluation.summary import Figure
from energy_iot.pipeline import ALL_STEPS
from energy_iot.reporting.findings import Findings
from energy_iot.reporting.progress import BarProgress
from energy_iot.reporting.summary import (
    evaluation_table,
    findings_tables,
    rows_table,
    runs_table,
    settings_table,
    steps_table,
    suspects_table,
)
from energy_iot.reporting.terminal import WrappedLines
from tests.unit.reporting.test_findings_tables import LOSS, SUSPECT

COMMON_WIDTH = 80
REASON = "registers 61 % less than its own past and its peers let expect since 2025-03-02 (1.1 kWh, before 1.9 kWh)"
SUSPECTS = [replace(SUSPECT, suspicion_rank=rank, meter_id=f"M{rank:06}", reasons=REASON) for rank in range(1, 4)]
RUNS: list[dict[str, Any]] = [
    {
        "id": f"20261122T21580{number}-49602a7b",
        "started": f"2026-11-22T21:58:0{number}Z",
        "status": status,
        "seconds": 2945.1,
        "package_version": "0.1.0",
        "model_version": 12,
        "error": error,
    }
    for number, (status, error) in enumerate([("succeeded", None), ("failed", "readings.csv does not exist")])
]
STEPS = [
    {
        "name": name,
        "status": "succeeded",
        "mode": "incremental",
        "seconds": 1005.0,
        "rows_in": 43_722_176,
        "rows_out": 87_551_094,
        "warnings": [],
    }
    for name in ALL_STEPS
]
STORED = {"raw": 43_722_176, "clickhouse": {"consumption_metrics": 350_403}}
SETTINGS = [{"setting": "home", "value": "/srv/energy", "origin": "default", "description": "State of the databases."}]

LARGE_LOSS = replace(LOSS, node_id="TRANSFORMER-0001", energy_in_kwh=12_345_678, unexplained_value=123_456_789)
NAMES = ("roc_auc", "average_precision", "precision_first_1pct", "precision_at_20", "recall_5pct", "stolen_kwh_5pct")
FIGURES = {"one Isolation Forest over all readings": dict.fromkeys(NAMES, Figure(0.467, 0.427, 0.506))}


def shown(renderable: RenderableType, width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [COMMON_WIDTH, 100, 120, 160])
@pytest.mark.parametrize(
    ("renderable", "words"),
    [
        (suspects_table(SUSPECTS, total=620), ["M000003", "2026-02-11", *REASON.split()]),
        (findings_tables(Findings(tuple(SUSPECTS), 620, (LOSS,)), command="energy-iot"), ["unexplained", "9,000"]),
        (
            findings_tables(Findings((), 0, (LARGE_LOSS,)), command="x"),
            ["TRANSFORMER-0001", "12,345,678", "123,456,789"],
        ),
        (evaluation_table(FIGURES), ["Isolation", "precision", "0.467"]),
        (steps_table(STEPS, title="Run"), [*ALL_STEPS, "incremental", "succeeded", "87,551,094", "1005.0"]),
        (runs_table(RUNS), [RUNS[0]["id"], RUNS[0]["started"], "succeeded", "failed", "2945.1"]),
        (rows_table(STORED), ["43,722,176", "consumption_metrics"]),
        (settings_table(SETTINGS), ["home", "/srv/energy", "databases."]),
    ],
    ids=["suspects", "findings", "losses", "evaluation", "steps", "runs", "rows", "settings"],
)
def test_no_word_is_broken(renderable: RenderableType, words: list[str], width: int) -> None:
    lines = shown(renderable, width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert [word for word in words if word not in text] == []


def test_where_the_table_is_too_wide_reasons_stand_below_their_meter() -> None:
    narrow, wide = (shown(suspects_table(SUSPECTS, total=620), width) for width in (COMMON_WIDTH, 160))
    assert sum(line.lstrip().startswith("- registers") for line in narrow) == len(SUSPECTS)
    assert any("suspicious" not in line and line.split()[-1:] == ["why"] for line in wide)


def test_the_error_of_a_run_is_told_at_any_width() -> None:
    for width in (COMMON_WIDTH, 160):
        assert "readings.csv does not exist" in "\n".join(shown(runs_table(RUNS), width))


def test_a_long_step_is_one_line_with_its_time() -> None:
    console = Console(width=COMMON_WIDTH, force_terminal=True, color_system=None)
    with console.capture() as capture, BarProgress(console).step("ingest_data", "Load new files " * 9):
        pass
    (line,) = (line for line in capture.get().splitlines() if "\N{CHECK MARK}" in line)
    assert " 0.0 s " in line
    assert line.rstrip().endswith("\N{HORIZONTAL ELLIPSIS}")


@given(st.lists(st.lists(st.text("ab-", min_size=1, max_size=8)), max_size=5), st.integers(20, 100))
def test_wrapping_loses_no_word(lines: list[list[str]], width: int) -> None:
    wrapped = shown(WrappedLines(tuple(f"  {' '.join(words)}" for words in lines)), width)
    assert " ".join(wrapped).split() == [word for words in lines for word in words]
