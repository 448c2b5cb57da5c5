"""What an operator does between runs, as typed: correct rejects, take a file out, serve, run on servers."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import clickhouse_connect
import polars as pl
import pytest

from energy_iot.serving.front_file import READER, WRITER, FrontAddress, find_front
from tests.postgres_server import missing, running_tcp_server

pytestmark = pytest.mark.heavy

HEADER = "meter_id,timestamp,consumption_kwh\n"


def energy_iot(home: Path, *arguments: object, exit_code: int = 0, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "energy_iot", "--home", str(home), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=home.parent,
        env=os.environ | variables,
        timeout=300,
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@contextmanager
def served(home: Path) -> Iterator[FrontAddress]:
    """`energy-iot serve clickhouse`, stopped as a service manager stops it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "energy_iot", "--home", str(home), "serve", "clickhouse", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert "answers on" in process.stdout.readline()
        address = find_front(home)
        assert address is not None
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode in {0, 128 + signal.SIGTERM}
    assert find_front(home) is None


def published(home: Path) -> dict[str, pl.DataFrame]:
    """What dashboards see, asked as they ask; ids, versions and times of scoring aside."""
    with served(home) as address:
        return published_by(address, READER)


def published_by(address: FrontAddress, user: str) -> dict[str, pl.DataFrame]:
    with clickhouse_connect.get_client(dsn=address.url(user), database="energy_analytics") as client:
        queries = {
            "scores": "select * except (reading_id, scored_at, model_version) from anomaly_scores order by all",
            "metrics": "select * from consumption_metrics order by all",
        }
        frames = {name: pl.from_arrow(client.query_arrow(query)) for name, query in queries.items()}
    return {name: frame for name, frame in frames.items() if isinstance(frame, pl.DataFrame)}


def lines_of(days: range) -> list[str]:
    """Two meters, each hour, with a rhythm."""
    return [
        f"m{meter},2025-01-{day:02} {hour:02}:00:00,{0.3 + 0.2 * meter + 0.05 * ((hour * 7 + day) % 11):.3f}"
        for meter in (1, 2)
        for day in days
        for hour in range(24)
    ]


def written(file: Path, lines: list[str]) -> Path:
    file.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return file


def test_corrected_rejects_give_what_a_sound_file_gives(tmp_path: Path) -> None:
    sound, later = lines_of(range(1, 20)), lines_of(range(20, 22))
    broken = [
        line.replace("00:00,0.", "00:00,kWh 0.") if number in {5, 17} else line for number, line in enumerate(later)
    ]
    home, right = tmp_path / "home", tmp_path / "right"
    energy_iot(home, "run", written(tmp_path / "sound.csv", sound))
    energy_iot(home, "run", written(tmp_path / "broken.csv", broken))

    listed = json.loads(energy_iot(home, "rejects", "list", "--json"))
    assert [(file["file"], file["open"]) for file in listed["files"]] == [("broken.csv", 2)]
    export = tmp_path / "rejects.csv"
    energy_iot(home, "rejects", "export", "--out", export)
    with export.open(newline="", encoding="utf-8-sig") as file:  # as a spreadsheet reads and writes it
        rows = list(csv.DictReader(file))
    for row in rows:
        row["raw_text"] = row["raw_text"].replace("kWh ", "")
    with export.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    energy_iot(home, "rejects", "retry", export)
    assert json.loads(energy_iot(home, "rejects", "list", "--json"))["files"] == []

    energy_iot(right, "run", tmp_path / "sound.csv")
    energy_iot(right, "run", written(tmp_path / "later.csv", later))
    expected = published(right)
    assert expected["scores"].height == len(sound) + len(later)
    for name, table in published(home).items():
        assert table.equals(expected[name]), name


def test_a_forgotten_file_leaves_nothing(tmp_path: Path) -> None:
    first = written(tmp_path / "first.csv", lines_of(range(1, 20)))
    second = written(tmp_path / "second.csv", lines_of(range(20, 22)))
    home = tmp_path / "home"
    energy_iot(home, "run", first)
    before = published(home)
    energy_iot(home, "run", second)
    assert published(home)["scores"].height > before["scores"].height
    energy_iot(home, "forget", "--file", "second.csv")
    for name, table in published(home).items():
        assert table.equals(before[name]), name
    energy_iot(home, "forget", "--file", "second.csv", exit_code=2)


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_a_whole_run_on_servers(tmp_path: Path) -> None:
    file = written(tmp_path / "readings.csv", lines_of(range(1, 20)))
    embedded, home, clickhouse = tmp_path / "embedded", tmp_path / "home", tmp_path / "clickhouse"
    energy_iot(embedded, "run", file)
    with running_tcp_server(tmp_path) as postgres, served(clickhouse) as front:
        database, user = f"d_{uuid4().hex}", f"u_{uuid4().hex}"
        postgres.execute("create database {}", database)
        servers = {
            "ENERGY_IOT_BACKEND": "server",
            "ENERGY_IOT_POSTGRES_DSN": postgres.dsn(database, user, postgres.create_user(user)),
            "ENERGY_IOT_CLICKHOUSE_URL": front.url(WRITER),
        }
        told = energy_iot(home, "init-db", **servers, ENERGY_IOT_POSTGRES_ADMIN_DSN=postgres.dsn(database))
        assert told.startswith(f"{user}: ")
        energy_iot(home, "run", file, **servers)
        rows = json.loads(energy_iot(home, "status", "--json", **servers))["rows"]
        found = published_by(front, READER)
    assert rows["raw"] == rows["scores"] == rows["clickhouse"]["anomaly_scores"] == 2 * 19 * 24
    assert not (home / "postgres").exists()
    expected = published(embedded)
    for name, table in found.items():
        assert table.equals(expected[name]), name
