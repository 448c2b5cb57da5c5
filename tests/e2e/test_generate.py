"""`energy-iot generate` as a user types it: all files, in their form, the same every time."""

import csv
import re
import subprocess
import sys
from pathlib import Path

COLUMNS = {
    "readings.csv": "meter_id,timestamp,consumption_kwh,temperature_c,humidity_pct,wind_speed_kmh,voltage_v,"
    "anomaly_label",
    "meters.csv": "meter_id,service_point_id,transformer_id,customer_class,tariff_per_kwh,currency,contracted_power_kw,"
    "is_prepaid,latitude,longitude,valid_from,valid_to",
    "network_nodes.csv": "node_id,node_type,parent_id,rated_kva,no_load_loss_kw,load_loss_kw,latitude,longitude,"
    "valid_from,valid_to",
    "network_readings.csv": "node_id,timestamp,energy_in_kwh",
    "outages.csv": "node_id,start_time,end_time,cause",
    "truth.csv": "subject_id,subject_type,kind,is_theft,start_time,end_time,stolen_kwh",
    "anomalies.csv": "meter_id,kind,start,end,readings",
}
FORMS = {
    "timestamp": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
    "start_time": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
    "end_time": r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)?",
    "valid_from": r"\d{4}-\d\d-\d\d",
    "valid_to": r"(\d{4}-\d\d-\d\d)?",
    "is_prepaid": "true|false",
    "is_theft": "true|false",
    "customer_class": "residential|commercial|industrial",
    "node_type": "substation|feeder|transformer",
    "subject_type": "meter|transformer",
    "cause": "load_shedding|fault",
}


def generate(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "energy_iot", "generate", "--out", str(folder), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_all_files_are_written_in_their_form_and_again_the_same(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = ("--meters", 70, "--days", 30, "--seed", 3, "--taps-share", 0.5)
    done = generate(one, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{one / 'readings.csv'}\n"
    assert {path.name for path in one.iterdir()} == set(COLUMNS)
    for name, columns in COLUMNS.items():
        with (one / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows, name
        assert ",".join(rows[0]) == columns
        for column, form in FORMS.items():
            if column in rows[0]:
                assert all(re.fullmatch(form, row[column]) for row in rows), f"{name} {column}"
    assert generate(two, *arguments).returncode == 0
    for name in COLUMNS:
        assert (one / name).read_bytes() == (two / name).read_bytes()
    again = generate(one, *arguments)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert "Traceback" not in again.stderr
