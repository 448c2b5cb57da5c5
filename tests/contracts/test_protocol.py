"""What is held out of development is not mentioned by what finds thieves, nor by its tests."""

from pathlib import Path

import pytest

from energy_iot.ml.evaluation.protocol import DETECTOR_FOLDERS, HELD_OUT_KINDS, JUDGING

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    path
    for folder in (*DETECTOR_FOLDERS, "tests/unit/ml", "tests/integration", "notebooks", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".sql", ".yml", ".ipynb"}
    and not any(path.is_relative_to(ROOT / place) for place in JUDGING)
    and not path.name.startswith("test_evaluation_")
]


def test_there_is_a_detector_to_look_at() -> None:
    assert {"scoring.py", "mart_anomaly_scores.sql", "test_features.py"} <= {path.name for path in FILES}


@pytest.mark.parametrize("kind", HELD_OUT_KINDS)
def test_the_detector_does_not_know_held_out_kinds(kind: str) -> None:
    assert not [path for path in FILES if kind in path.read_text(encoding="utf-8")]
