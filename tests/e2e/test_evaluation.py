"""A fleet from its seed to the page, and inspections from a file to the list; development fleets only."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from energy_iot.ml.evaluate import PAGE, SPENT_SEEDS
from energy_iot.ml.evaluation.baselines import BASELINES
from energy_iot.ml.evaluation.fleet_run import PERFECT, SUSPICION
from energy_iot.ml.evaluation.protocol import DEVELOPMENT_KINDS

pytestmark = pytest.mark.heavy


def energy_iot(folder: Path, *arguments: object, exit_code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "energy_iot", "--home", str(folder / "home"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=600,
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout


def test_a_development_fleet_from_its_seed_to_the_page(tmp_path: Path) -> None:
    before = [file.read_bytes() if file.exists() else None for file in (PAGE, SPENT_SEEDS)]
    page = tmp_path / "page.md"
    asked = ["--development", "--seeds", "1", "--meters", "128", "--days", "70", "--interval", "60", "--out", page]
    shown = energy_iot(tmp_path, "evaluate", *asked)
    assert shown.rstrip().endswith(str(page))
    record = json.loads(page.with_suffix(".json").read_text())
    (fleet,) = record["facts"]["fleets"]
    assert (fleet["seed"], fleet["days"], fleet["interval_minutes"]) == (1, 70, 60)
    assert fleet["meters"] >= 128  # replaced meters are two
    assert 128 * 70 * 24 * 0.9 < fleet["readings"] <= fleet["meters"] * 70 * 24
    assert fleet["thieves"] > 3
    assert fleet["transformers"] > 2
    rankings = record["summary"]["rankings"]
    assert list(rankings) == [SUSPICION, *(baseline.name for baseline in BASELINES), PERFECT]
    assert rankings["random"]["roc_auc"]["value"] == 0.5
    assert rankings[PERFECT]["roc_auc"]["value"] == 1.0
    # every ranking is one: it has opinions, and they are not all the same
    assert all(rankings[name]["roc_auc"]["value"] != 0.5 for name in rankings if name != "random")
    assert {one["kind"] for one in record["summary"]["kinds"]} <= set(DEVELOPMENT_KINDS)
    assert "development fleets" in page.read_text()
    assert "1 |" in page.read_text()
    assert [file.read_bytes() if file.exists() else None for file in (PAGE, SPENT_SEEDS)] == before


def test_inspections_from_a_file_to_the_list(tmp_path: Path) -> None:
    kinds = ",".join(DEVELOPMENT_KINDS)
    energy_iot(tmp_path, "generate", "--meters", "30", "--days", "60", "--theft-kinds", kinds, "--out", "data")
    for name in ("truth.csv", "anomalies.csv"):
        (tmp_path / "data" / name).unlink()
    energy_iot(tmp_path, "run", "data")
    outcomes = tmp_path / "outcomes.csv"
    outcomes.write_text(
        "meter_id,inspected_on,found_theft,kind,recovered_kwh\n"
        "M000001,2025-03-01,true,bypass,120.5\n"
        "M000002,2025-03-02,no,,\n"
    )
    energy_iot(tmp_path, "inspections", "import", outcomes)
    energy_iot(tmp_path, "inspections", "import", outcomes)  # again: nothing more
    listed = json.loads(energy_iot(tmp_path, "inspections", "list", "--json"))
    assert listed == [
        {
            "meter_id": "M000002",
            "inspected_on": "2025-03-02",
            "found_theft": False,
            "kind": None,
            "recovered_kwh": None,
        },
        {
            "meter_id": "M000001",
            "inspected_on": "2025-03-01",
            "found_theft": True,
            "kind": "bypass",
            "recovered_kwh": 120.5,
        },
    ]
    assert "2 inspections, theft found in 1, 120 kWh recovered" in energy_iot(tmp_path, "inspections", "list")
    ranked = pl.read_csv(energy_iot(tmp_path, "rank", "--top", "100", "--format", "csv").encode())
    assert ranked.height >= 30
    assert dict(ranked.select("meter_id", "last_found_theft").drop_nulls().iter_rows()) == {
        "M000001": True,
        "M000002": False,
    }
    energy_iot(tmp_path, "inspections", "import", tmp_path / "data" / "meters.csv", exit_code=3)
