"""The command line as a user types it, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from energy_iot.cli import app

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def energy_iot(tmp_path: Path) -> Run:
    """Run a command in an empty folder, with a home whose path has a space and is too long for a socket name."""
    home = tmp_path / ("a home " + "x" * 90)

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "energy_iot", "--home", home, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | variables,
            timeout=300,
        )

    return run


def test_help_imports_nothing_heavy() -> None:
    heavy = {"polars", "pyarrow", "sklearn", "dbt", "great_expectations", "pydantic", "psycopg", "chdb"}
    code = f"import sys, energy_iot.cli; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("name", sorted(get_command(app).commands))
def test_every_command_says_what_it_does(name: str) -> None:
    command = get_command(app).commands[name]
    assert command.get_short_help_str(limit=60).strip(".")
    assert "..." not in command.get_short_help_str(limit=60)


def test_first_steps_without_any_data(energy_iot: Run) -> None:
    status = energy_iot("status", "--json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["run"] is None
    assert "energy-iot run FILE" in energy_iot("status").stdout
    report = energy_iot("report")
    assert (report.returncode, report.stdout) == (2, "")
    assert "energy-iot run" in report.stderr


def test_doctor_finds_a_working_installation(energy_iot: Run) -> None:
    done = energy_iot("doctor", "--json")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert found["PostgreSQL"]["found"].startswith("18")
    assert found["ClickHouse"]["ok"]


def test_doctor_says_what_to_do_about_a_server_that_is_not_there(energy_iot: Run) -> None:
    done = energy_iot("doctor", ENERGY_IOT_POSTGRES_DSN="postgresql://u:s3cret@127.0.0.1:1/d")
    assert done.returncode == 1
    assert "127.0.0.1:1/d" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "exit_code", "told"),
    [
        (("run",), {}, 2, "FILE..."),
        (("frobnicate",), {}, 2, "frobnicate"),
        (("run", "nowhere.csv"), {}, 3, "nowhere.csv"),
        (("status",), {"ENERGY_IOT_TREES": "none"}, 2, "trees"),
        (("status",), {"ENERGY_IOT_POSTGRES_DSN": "postgresql://u:s3cret@127.0.0.1:1/d"}, 5, "127.0.0.1:1/d"),
    ],
)
def test_errors_name_the_cause_and_have_their_exit_code(
    energy_iot: Run, arguments: tuple[str, ...], variables: dict[str, str], exit_code: int, told: str
) -> None:
    done = energy_iot(*arguments, **variables)
    assert done.returncode == exit_code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stderr


def test_config_show_says_where_values_come_from_and_hides_secrets(energy_iot: Run) -> None:
    done = energy_iot(
        "config", "show", "--json", ENERGY_IOT_POSTGRES_DSN="postgresql://u:s3cret@h/d", ENERGY_IOT_TREES="50"
    )
    rows = {row["setting"]: row for row in json.loads(done.stdout)}
    assert (rows["trees"]["value"], rows["trees"]["origin"]) == (50, "environment")
    assert rows["home"]["origin"] == "command line"
    assert "s3cret" not in done.stdout


def test_global_options_may_follow_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "energy_iot", "config", "show", "--json", "--home", str(tmp_path / "there")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)[0]["value"] == str(tmp_path / "there")


def test_no_server_is_left_behind(energy_iot: Run, tmp_path: Path) -> None:
    assert energy_iot("status").returncode == 0
    assert not list(tmp_path.rglob("postmaster.pid"))


def test_a_killed_process_leaves_a_home_that_works(energy_iot: Run, tmp_path: Path) -> None:
    home = tmp_path / "killed"
    code = (
        "from pathlib import Path; from energy_iot.storage.embedded_postgres import running_server\n"
        f"with running_server(Path({str(home)!r}) / 'postgres'): print('up', flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(home.rglob("postmaster.pid"))
    done = subprocess.run(
        [sys.executable, "-m", "energy_iot", "--home", home, "status"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not list(home.rglob("postmaster.pid"))


@pytest.mark.parametrize(
    ("number", "told_last"), [(signal.SIGINT, "type the same command to go on"), (signal.SIGTERM, "")]
)
def test_an_interrupted_run_leaves_no_server(tmp_path: Path, number: signal.Signals, told_last: str) -> None:
    home = tmp_path / "home"
    energy_iot = [sys.executable, "-m", "energy_iot", "--home", str(home)]
    subprocess.run([*energy_iot, "generate", "--meters", "40", "--days", "60", "--out", str(tmp_path)], check=True)
    process = subprocess.Popen(
        [*energy_iot, "run", str(tmp_path / "readings.csv")],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a test runner may ignore it
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("dbt_run_staging"):  # the files are in
            process.send_signal(number)
            break
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert told_last in told
    assert "Traceback" not in told
    assert not list(home.rglob("postmaster.pid"))
