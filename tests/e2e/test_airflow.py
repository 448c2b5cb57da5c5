"""The DAGs in a real Airflow: parsed, run without servers, and run by its three processes on PostgreSQL."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from energy_iot.orchestration.airflow_servers import CONFIG_DIR, PROCESSES, airflow_home, read_address
from energy_iot.pipeline import ALL_STEPS, MODEL_STEPS, STEPS, find_step
from energy_iot.serving.local_server import ADDRESS_FILE
from energy_iot.settings import PROJECT_DIR, load_settings
from energy_iot.storage.postgres import open_postgres
from energy_iot.storage.run_lock import lock_holder
from tests.chromium import CHROMIUM, NO_CHROMIUM, running_chromium
from tests.live_airflow import (
    DAILY,
    INSTALLED,
    NOT_INSTALLED,
    LiveAirflow,
    environment,
    live_airflow,
    run_program,
)
from tests.live_server import is_alive, processes_of
from tests.receivers import webhook
from tests.stored_tables import derived_tables, differences
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.xdist_group("airflow"),
    pytest.mark.skipif(not INSTALLED, reason=NOT_INSTALLED),
]

MONTHLY = "energy_model_monthly"
HISTORY_DAYS = 40
WEEK_DAYS = 7
NUMBERS = frozenset({"reading_id"})  # as many, in another order
HEADER = "meter_id,timestamp,consumption_kwh\n"


@dataclass(frozen=True)
class Fleet:
    """A month of history, and a week in daily files; `dates` are theirs."""

    history: Path
    days: tuple[Path, ...]
    dates: tuple[date, ...]


def run(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "energy_iot", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(variables),
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("fleet")
    run("generate", "--meters", "12", "--days", str(HISTORY_DAYS + WEEK_DAYS), "--seed", "4", "--out", folder)
    readings = pl.read_csv(folder / "readings.csv", infer_schema=False)
    by_day = readings.with_columns(day=pl.col("timestamp").str.slice(0, 10)).sort("day", "meter_id", "timestamp")
    week = sorted(by_day["day"].unique())[-WEEK_DAYS:]
    history = folder / "history.csv"
    by_day.filter(pl.col("day") < week[0]).drop("day").write_csv(history)
    files = [folder / f"readings_{day}.csv" for day in week]
    for day, file in zip(week, files, strict=True):
        by_day.filter(pl.col("day") == day).drop("day").write_csv(file)
    return Fleet(history, tuple(files), tuple(map(date.fromisoformat, week)))


@pytest.fixture(scope="module")
def alerts() -> Iterator[tuple[str, list[dict[str, str]]]]:
    with webhook() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, fleet: Fleet, alerts: tuple[str, list[dict[str, str]]]
) -> Iterator[LiveAirflow]:
    """An Airflow whose pipeline has loaded the history; each daily run is late at once."""
    folder = tmp_path_factory.mktemp("live")
    run("--home", folder / "home", "run", fleet.history)
    with live_airflow(
        folder / "home",
        folder / "landing",
        ENERGY_IOT_ALERT_WEBHOOK_URL=alerts[0],
        ENERGY_IOT_LATE_HOUR_UTC="6",
    ) as live:
        wait_for(lambda: first_run_ended(live), "end of this morning's run")
        yield live


def first_run_ended(live: LiveAirflow) -> bool:
    """Of the last interval, which Airflow begins by itself when it sees the DAG for the first time."""
    runs = live.runs()
    return bool(runs) and runs[-1]["state"] in {"success", "failed"}


def scores_of_home(home: Path) -> int:
    with open_postgres(load_settings(home=home)) as postgres, postgres.connect() as connection:
        row = connection.execute("select count(*) from marts.mart_anomaly_scores").fetchone()
    assert row is not None
    return int(row[0])


# --- without servers ------------------------------------------------------------------------------------------------

DESCRIBE_DAGS = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag()
print(json.dumps({"errors": bag.import_errors, "dags": {
    dag.dag_id: {
        "doc": dag.doc_md, "active": dag.max_active_runs, "catchup": dag.catchup,
        "expression": dag.timetable.expression,
        "tasks": [{
            "id": task.task_id, "doc": task.doc_md, "retries": task.retries, "follows": sorted(task.upstream_task_ids),
            "limit": task.execution_timeout.total_seconds(), "told": len(task.on_failure_callback),
            "assets": sorted(outlet.name for outlet in task.outlets),
        } for task in dag.topological_sort()],
    } for dag in bag.dags.values()
}}))
"""


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An Airflow of its own on SQLite, for what needs no server."""
    folder = tmp_path_factory.mktemp("serverless")
    (folder / "landing").mkdir()
    return {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_DIR / "airflow" / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "ENERGY_IOT_HOME": str(folder / "home"),
        "ENERGY_IOT_LANDING_DIR": str(folder / "landing"),
    }


def test_the_dags_are_the_tables_of_steps(variables: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DESCRIBE_DAGS],
        capture_output=True,
        text=True,
        env=environment(variables),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == {}
    assert {name: dag["expression"] for name, dag in found["dags"].items()} == {
        DAILY: "0 6 * * *",
        MONTHLY: "0 4 1 * *",
    }
    for name, steps in ((DAILY, ALL_STEPS), (MONTHLY, MODEL_STEPS)):
        dag = found["dags"][name]
        assert (dag["active"], dag["catchup"]) == (1, False)
        assert dag["doc"]
        tasks = dag["tasks"]
        assert [task["id"] for task in tasks] == ["start", *steps, "end"]
        for before, task in pairwise(tasks):
            assert before["id"] in task["follows"]
            assert set(task["follows"]) <= {before["id"], "start"}
        for task in tasks:
            assert task["doc"]
            assert task["retries"] == 2
            assert task["told"] == 1
            assert 0 < task["limit"] <= 4 * 3600
            if task["id"] in steps:
                step = find_step(task["id"])
                assert task["assets"] == sorted(step.updates)
                assert step.description in task["doc"]
    assert sum(len(step.updates) for step in STEPS) > len(STEPS)


def test_the_scheduler_has_what_its_tasks_import(variables: dict[str, str]) -> None:
    """Tasks are forks of it; what they find imported costs them nothing."""
    code = "import sys; sys.argv.append('scheduler'); import airflow_local_settings; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env=environment(variables | {"PYTHONPATH": str(CONFIG_DIR)}),
    )
    assert done.returncode == 0, done.stderr
    wanted = {step.function.partition(":")[0] for step in STEPS} | {"dbt.adapters.postgres", "great_expectations"}
    assert wanted <= set(done.stdout.split())


def test_a_run_without_servers(variables: dict[str, str], fleet: Fleet, tmp_path: Path) -> None:
    """`airflow dags test`: the files that end before the interval does, then nothing new."""
    landing = Path(variables["ENERGY_IOT_LANDING_DIR"])
    for file in (fleet.history, *fleet.days[:2]):
        (landing / file.name).symlink_to(file)
    assert run_program(["db", "migrate"], variables).returncode == 0

    def dags_test(morning: date) -> str:
        done = run_program(["dags", "test", DAILY, f"{morning}T06:00:00+00:00"], variables)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout + done.stderr

    dags_test(fleet.dates[1])
    home, plain = Path(variables["ENERGY_IOT_HOME"]), tmp_path / "plain"
    run("--home", plain, "run", fleet.history, fleet.days[0])
    assert differences(*(derived_tables(load_settings(home=one)) for one in (home, plain)), leave_out=NUMBERS) == {}

    before = scores_of_home(home)
    assert "hold later readings than this run takes" in dags_test(fleet.dates[1])
    assert scores_of_home(home) == before
    dags_test(fleet.dates[2])
    assert scores_of_home(home) > before


# --- the three processes --------------------------------------------------------------------------------------------


def loaded_files(home: Path) -> list[str]:
    with open_postgres(load_settings(home=home)) as postgres, postgres.connect() as connection:
        return [name for (name,) in connection.execute("select file_name from raw_data.ingested_files order by 1")]


def states(live: LiveAirflow, run_id: str, dag_id: str = DAILY) -> dict[str, str]:
    return {name: task["state"] for name, task in live.tasks(run_id, dag_id).items()}


def variant(file: Path, folder: Path, change: Callable[[float], float]) -> Path:
    """The readings of a file, with another consumption."""
    other = folder / f"{folder.parent.name}_{file.name}"
    readings = pl.read_csv(file).with_columns(pl.col("consumption_kwh").map_elements(change, return_dtype=pl.Float64))
    readings.write_csv(other)
    return other


def test_it_says_where_it_is_and_how_to_log_in(airflow: LiveAirflow) -> None:
    address = (airflow_home(airflow.settings) / ADDRESS_FILE).stat()
    assert address.st_mode & 0o077 == 0
    assert "Airflow answers on http://127.0.0.1:" in airflow.said
    assert airflow.said.count("password ") == 1
    assert airflow.get("/importErrors")["import_errors"] == []
    assert {dag["dag_id"] for dag in airflow.get("/dags")["dags"]} == {DAILY, MONTHLY}


def test_a_late_run_is_told(airflow: LiveAirflow, alerts: tuple[str, list[dict[str, str]]]) -> None:
    def late() -> str | None:
        return next((got["text"] for got in alerts[1] if "is late" in got["text"]), None)

    said = wait_for(late, "alert of a late run")
    assert said.startswith(f"{DAILY}: scheduled__")
    assert "what to do: " in said
    assert f"/dags/{DAILY}/runs/scheduled__" in said


def test_a_run_asked_for_by_rest_ends_well(airflow: LiveAirflow, fleet: Fleet) -> None:
    done = airflow.energy_iot("trigger", fleet.days[0])
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ALL_STEPS:
        assert f"{step}: success, " in done.stderr
    assert done.stdout.startswith("manual__")
    assert "report.html" in done.stdout
    assert fleet.days[0].name in loaded_files(airflow.home)


def assert_equal_to_a_full_refresh(live: LiveAirflow) -> None:
    found = derived_tables(live.settings)
    run("--home", live.home, "run", "--full-refresh")
    assert differences(found, derived_tables(live.settings)) == {}


def test_nothing_new_is_skipped_and_green(airflow: LiveAirflow, fleet: Fleet) -> None:
    run("--home", airflow.home, "run", fleet.days[1])  # without Airflow in between
    done = airflow.energy_iot("trigger")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "there was nothing to do" in done.stdout
    found = states(airflow, done.stdout.split(": ")[0])
    assert {found.pop("start"), found.pop("end")} == {"success"}
    assert set(found.values()) == {"skipped"}


def test_two_triggers_at_once(airflow: LiveAirflow, fleet: Fleet) -> None:
    before = loaded_files(airflow.home)
    both = [airflow.begin("trigger", fleet.days[2]) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("there was nothing to do" in text for text in said) == 1
    assert loaded_files(airflow.home) == sorted([*before, fleet.days[2].name])
    assert_equal_to_a_full_refresh(airflow)


def test_unsound_data_stop_the_run_and_are_told(
    airflow: LiveAirflow, fleet: Fleet, alerts: tuple[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    unsound = variant(fleet.days[3], tmp_path, lambda _: 5_000.0)
    before = derived_tables(airflow.settings)
    told = len(alerts[1])
    done = airflow.energy_iot("trigger", unsound)
    try:
        assert done.returncode == 1
        assert "the run failed in ge_validate_staging" in done.stderr
        run_id = airflow.runs()[0]["dag_run_id"]
        tasks = airflow.tasks(run_id)
        assert tasks["ge_validate_staging"]["try_number"] == 1
        place = ALL_STEPS.index("ge_validate_staging")
        assert {tasks[name]["state"] for name in ALL_STEPS[:place]} == {"success"}
        assert {tasks[name]["state"] for name in (*ALL_STEPS[place + 1 :], "end")} == {"upstream_failed"}
        published = {name: table for name, table in before.items() if name.startswith(("clickhouse.", "marts."))}
        found = derived_tables(airflow.settings)
        assert differences(published, {name: found[name] for name in published}) == {}
        (alert,) = [got["text"] for got in alerts[1][told:]]
        assert alert.startswith(f"{DAILY}: ge_validate_staging failed in {run_id}")
        assert "consumption is plausible in almost all readings" in alert
        assert "what to do: " in alert
        assert f"/dags/{DAILY}/runs/" in alert
    finally:
        run("--home", airflow.home, "forget", "--file", unsound.name)


def test_a_killed_task_is_tried_again_to_the_same_result(airflow: LiveAirflow, fleet: Fleet) -> None:
    process = airflow.begin("trigger", fleet.days[4])
    wait_for(lambda: process_of(airflow, "dbt_run_intermediate"), "process of the task").kill()
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
    tasks = airflow.tasks(airflow.runs()[0]["dag_run_id"])
    assert tasks["dbt_run_intermediate"]["try_number"] == 2
    assert {task["state"] for task in tasks.values()} == {"success"}
    assert_equal_to_a_full_refresh(airflow)


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
def test_the_grid_of_a_run_in_a_browser(airflow: LiveAirflow) -> None:
    assert any(run["state"] == "success" for run in airflow.runs())  # one of those before
    address = read_address(airflow.settings)
    with running_chromium() as browser:
        page = browser.new_page(viewport={"width": 1366, "height": 900})
        page.goto(address.url)
        page.fill("input[name=username]", address.user)
        page.fill("input[name=password]", address.password)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "login" not in url)
        page.goto(f"{address.url}/dags/{DAILY}")
        for name in ("start", *ALL_STEPS, "end"):
            page.get_by_text(name, exact=True).first.wait_for()


def process_of(live: LiveAirflow, step: str) -> psutil.Process | None:
    with open_postgres(live.settings) as postgres:
        holder = lock_holder(postgres)
    if holder is None or holder.command is None or not holder.command.startswith(f"{step} of "):
        return None
    return psutil.Process(holder.process_id)


def test_the_model_is_renewed(airflow: LiveAirflow) -> None:
    done = airflow.energy_iot("trigger", "--dag", MONTHLY)
    assert done.returncode == 0, done.stdout + done.stderr
    found = states(airflow, airflow.runs(MONTHLY)[0]["dag_run_id"], MONTHLY)
    assert found["compare_models"] == "success"
    with open_postgres(airflow.settings) as postgres, postgres.connect() as connection:
        versions = dict(
            connection.execute("select model_version, in_force_since is not null from ml.model_versions").fetchall()
        )
    assert len(versions) >= 2
    assert versions[max(versions)] == (found["promote_model"] == "success")


def test_a_backfill_of_a_week_equals_one_run(tmp_path: Path, fleet: Fleet) -> None:
    home, landing, plain = tmp_path / "home", tmp_path / "landing", tmp_path / "plain"
    run("--home", home, "run", fleet.history)
    run("--home", plain, "run", fleet.history)
    with live_airflow(home, landing) as live:
        wait_for(lambda: first_run_ended(live), "end of this morning's run")
        for file in fleet.days:
            (landing / file.name).symlink_to(file)
        ends = ("--from-date", fleet.dates[0].isoformat(), "--to-date", f"{fleet.dates[-1]}T23:00:00")
        done = live.energy_iot("airflow", "backfill", "create", "--dag-id", DAILY, *ends, "--max-active-runs", "1")
        assert done.returncode == 0, done.stdout + done.stderr

        def ended() -> list[dict[str, Any]] | None:
            runs = [one for one in live.runs() if one["run_type"] == "backfill"]
            return (
                runs if len(runs) == WEEK_DAYS and all(one["state"] in {"success", "failed"} for one in runs) else None
            )

        runs = wait_for(ended, "end of the backfill", seconds=1500)
        assert {one["state"] for one in runs} == {"success"}
        assert all(states(live, one["dag_run_id"])["sync_to_clickhouse"] == "success" for one in runs)
    run("--home", plain, "run", *fleet.days)
    assert differences(*(derived_tables(load_settings(home=one)) for one in (home, plain)), leave_out=NUMBERS) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_it_stops_without_leaving_a_process(tmp_path: Path, number: signal.Signals) -> None:
    with live_airflow(tmp_path / "home", tmp_path / "landing") as live:
        started = processes_of(live.process)
        assert len(started) > len(PROCESSES)
        live.process.send_signal(number)
        live.process.wait(timeout=60)
        assert [process for process in started if is_alive(process)] == []
        assert not (airflow_home(live.settings) / ADDRESS_FILE).exists()
    assert not (tmp_path / "home" / "postgres" / "postmaster.pid").exists()
