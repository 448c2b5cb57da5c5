"""Files in, ClickHouse out, through the command line: each source, again, and when the data is bad."""

import gzip
import json
import math
import re
import subprocess
import sys
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from energy_iot.pipeline import STEPS
from energy_iot.settings import load_settings
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import open_postgres

MART_COLUMNS = "meter_id, reading_timestamp, consumption_kwh, anomaly_score, is_anomaly, anomaly_type"


def energy_iot(home: Path, *arguments: object, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "energy_iot", "--home", str(home), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=home.parent,
        timeout=300,
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done


def status(home: Path) -> dict[str, Any]:
    return dict(json.loads(energy_iot(home, "status", "--json").stdout))


def marts(home: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both published tables, run-dependent columns aside."""
    with open_clickhouse(load_settings(home=home)) as client:
        scores = pl.from_arrow(client.query_arrow(f"select {MART_COLUMNS} from anomaly_scores order by all"))
        metrics = pl.from_arrow(client.query_arrow("select * from consumption_metrics order by all"))
    assert isinstance(scores, pl.DataFrame)
    assert isinstance(metrics, pl.DataFrame)
    return scores, metrics


def kaggle_rows(count: int) -> list[tuple[datetime, str]]:
    """Half-hours in the columns of the Kaggle set, values in its normalised range."""
    rows = []
    for number in range(count):
        consumption = 0.4 + 0.2 * math.sin(number / 7.3) + 0.05 * math.sin(number * 1.7) + 0.4 * (number % 211 == 210)
        label = "Abnormal" if number % 211 == 210 else "Normal"
        values = f"{consumption:.9f},{0.5 + 0.3 * math.sin(number / 48):.9f},0.4,0.3,{0.45:.9f},{label}"
        rows.append((datetime(2024, 1, 1) + timedelta(minutes=30 * number), values))
    return rows


KAGGLE_HEADER = "Timestamp,Electricity_Consumed,Temperature,Humidity,Wind_Speed,Avg_Past_Consumption,Anomaly_Label\n"


def test_a_generated_fleet_goes_all_the_way_and_a_rerun_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    energy_iot(home, "generate", "--meters", 6, "--days", 30, "--seed", 3, "--out", tmp_path / "fleet")
    readings = tmp_path / "fleet" / "readings.csv"
    given = pl.read_csv(readings)

    first = energy_iot(home, "run", readings)
    assert "sync_to_clickhouse" in first.stdout
    assert (home / "reports" / "report.html").stat().st_size > 100_000
    found = status(home)
    assert found["run"]["status"] == "succeeded"
    assert [step["name"] for step in found["steps"]] == [step.name for step in STEPS]
    assert {step["status"] for step in found["steps"]} == {"succeeded"}
    rows = found["rows"]
    assert rows["raw"] == given.height
    assert rows["rejected"] == 0
    assert rows["staging"] == rows["scores"] == rows["clickhouse"]["anomaly_scores"] == given.height
    assert 0 < rows["anomalies"] < 0.2 * given.height
    before = marts(home)
    assert before[0]["consumption_kwh"].sum() == pytest.approx(given["consumption_kwh"].sum())

    second = energy_iot(home, "run", readings)
    assert "up to date" in second.stdout
    assert {step["status"] for step in status(home)["steps"]} == {"skipped"}
    assert status(home)["rows"] == rows
    for left, right in zip(before, marts(home), strict=True):
        assert left.equals(right)


@pytest.mark.heavy
def test_the_spreadsheet_twin_gives_the_same_marts(tmp_path: Path) -> None:
    rows = kaggle_rows(1500)
    iso, spreadsheet = tmp_path / "iso.csv", tmp_path / "spreadsheet.csv.gz"
    iso.write_text(KAGGLE_HEADER + "".join(f"{at:%Y-%m-%d %H:%M:%S},{values}\n" for at, values in rows))
    with gzip.open(spreadsheet, "wt", newline="") as file:
        file.write(KAGGLE_HEADER)
        file.writelines(f"{at:%m/%d/%Y} {at.hour}:{at:%M},{values}\r\n" for at, values in rows)
    for name, file in (("one", iso), ("two", spreadsheet)):
        energy_iot(tmp_path / name, "run", file)
    for left, right in zip(marts(tmp_path / "one"), marts(tmp_path / "two"), strict=True):
        assert left.height > 0
        assert left.equals(right)
    with open_postgres(load_settings(home=tmp_path / "one")) as postgres, postgres.connect() as connection:
        (details,) = (
            connection.execute("select details from quality.step_runs where step = 'ml_score'").fetchone() or ()
        )
    assert "Isolation Forest" in details["agreement"]["caveat"]


@pytest.mark.heavy
def test_uci_minutes_become_energy_and_missing_ones_gaps(tmp_path: Path) -> None:
    home, archive = tmp_path / "home", tmp_path / "household.zip"
    start = datetime(2007, 1, 1)
    lines = ["Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
             "Sub_metering_1;Sub_metering_2;Sub_metering_3"]  # fmt: skip
    missing = {*range(500, 520), 900}
    for minute in range(3000):
        at = start + timedelta(minutes=minute)
        stamp = f"{at.day}/{at.month}/{at.year};{at:%H:%M:%S}"
        power = f"{1.2 + math.sin(minute / 200):.3f}"
        lines.append(f"{stamp};?;?;?;?;?;?;" if minute in missing else f"{stamp};{power};0.1;241.2;4.6;0.0;1.0;17.0")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("household_power_consumption.txt", "\r\n".join(lines) + "\r\n")

    energy_iot(home, "run", archive)
    rows = status(home)["rows"]
    assert (rows["raw"], rows["rejected"], rows["staging"]) == (3000, 0, 3000 - len(missing))
    with open_postgres(load_settings(home=home)) as postgres, postgres.connect() as connection:
        gaps = connection.execute(
            "select count(*), sum(missing_readings) from intermediate.int_reading_gaps"
        ).fetchone()
        first = connection.execute(
            "select consumption_kwh, voltage_v, sub_metering_3_kwh from staging.stg_meter_readings "
            "order by reading_timestamp limit 1"
        ).fetchone()
    assert gaps == (2, len(missing))
    assert first is not None
    assert float(first[0]) == pytest.approx(1.2 / 60, rel=1e-12)
    assert first[1:] == (241.2, 0.017)
    assert re.search(r"21\s+readings missing\s+in 2 gaps", (home / "reports" / "report.html").read_text())


@pytest.mark.heavy
def test_bad_data_stops_the_run_before_it_is_published(tmp_path: Path) -> None:
    home = tmp_path / "home"
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text(KAGGLE_HEADER + "".join(f"{at},{values}\n" for at, values in kaggle_rows(1200)))
    energy_iot(home, "run", good)
    before = marts(home)
    later = [(at + timedelta(days=100), values) for at, values in kaggle_rows(1200)]
    bad.write_text(KAGGLE_HEADER + "".join(f"{at},-{values}\n" for at, values in later))

    done = energy_iot(home, "run", bad, exit_code=4)
    assert "consumption" in done.stderr
    assert "Traceback" not in done.stderr
    steps = {step["name"]: step["status"] for step in status(home)["steps"]}
    assert steps["ge_validate_staging"] == "failed"
    assert "ml_score" not in steps
    for left, right in zip(before, marts(home), strict=True):
        assert left.equals(right)


def test_an_unreadable_file_loads_nothing(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "broken.csv.gz"
    whole = gzip.compress((KAGGLE_HEADER + "".join(f"{at},{values}\n" for at, values in kaggle_rows(3000))).encode())
    file.write_bytes(whole[: len(whole) // 2])
    done = energy_iot(home, "run", file, exit_code=3)
    assert "broken.csv.gz" in done.stderr
    assert status(home)["rows"]["raw"] == 0


@pytest.mark.heavy
def test_steps_by_hand_give_what_run_gives(tmp_path: Path) -> None:
    file = tmp_path / "readings.csv"
    file.write_text(KAGGLE_HEADER + "".join(f"{at},{values}\n" for at, values in kaggle_rows(1200)))
    energy_iot(tmp_path / "whole", "run", file)
    for step in STEPS:
        takes_files = step.name in {"check_source", "ingest_data"}
        energy_iot(tmp_path / "by_hand", *step.command, *([file] if takes_files else []))
    for left, right in zip(marts(tmp_path / "whole"), marts(tmp_path / "by_hand"), strict=True):
        assert left.equals(right)
