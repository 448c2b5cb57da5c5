"""The stack of docker-compose.yml on a real Docker engine: our images, and stand-ins of the official ones.

The tests follow one another as a person's days do: started, used, stopped, started again, lost and restored.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from energy_iot.orchestration.airflow_client import AirflowRun, trigger_and_follow
from energy_iot.orchestration.airflow_servers import USER, AirflowAddress
from energy_iot.pipeline import STEPS
from energy_iot.reporting.progress import Progress
from energy_iot.serving.front_file import WRITER
from energy_iot.serving.superset_client import list_all, logged_in
from energy_iot.serving.superset_server import ADMIN, ANALYST, SupersetAddress
from energy_iot.simulation.fleet import generate
from tests.compose.engine import Checkout, clone, import_base, missing, running_engine
from tests.waiting import wait_for

WHY_NOT = missing()
pytestmark = [pytest.mark.compose, pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")]

DAILY = "energy_pipeline_daily"
OURS = ("energy-iot/pipeline:0.1.0", "energy-iot/superset:0.1.0")
ONE_SHOTS = {"init-db", "airflow-migrate", "monitoring-config"}
NOBODY_STANDS_IN = {
    "clickhouse",
    "containers",
}  # targets: the front has no endpoint of its own, and cAdvisor none at all


@dataclass(frozen=True)
class Fleet:
    """Readings of a fleet, in files one after the other, and its registry and network."""

    history: Path
    week: Path
    day: Path
    last_day: Path
    network: tuple[Path, ...]

    def place(self, file: Path, folder: Path) -> int:
        """Put a file where the stack finds it; returns how many rows it has."""
        (folder / file.name).write_bytes(file.read_bytes())
        return pl.read_csv(file).height


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("fleet")
    made = generate(folder, meters=40, days=60, seed=4, taps_share=0.5, progress=Progress())
    whole = pl.read_csv(made.readings, infer_schema=False).with_columns(day=pl.col("timestamp").str.slice(0, 10))
    days = sorted(whole["day"].unique())
    first, second, third = days[-8], days[-2], days[-1]
    parts = {
        "history": pl.col("day") < first,
        "week": (pl.col("day") >= first) & (pl.col("day") < second),
        "day": (pl.col("day") >= second) & (pl.col("day") < third),
        "last_day": pl.col("day") >= third,
    }
    for name, condition in parts.items():
        whole.filter(condition).drop("day").write_csv(folder / f"{name}.csv")
    network = ("meters.csv", "network_nodes.csv", "network_readings.csv", "outages.csv")
    return Fleet(*(folder / f"{name}.csv" for name in parts), tuple(folder / name for name in network))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, fleet: Fleet) -> Iterator[Checkout]:
    """A fresh clone whose stack was started as the readme says."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "engine").mkdir()
    with running_engine(folder / "engine") as engine:
        import_base(engine, folder)
        checkout = clone(engine, folder / "clone")
        for file in (fleet.history, *fleet.network):
            fleet.place(file, checkout.folder / "data" / "raw")
        try:
            said = checkout.make("up")
            assert f"http://127.0.0.1:{checkout.port('AIRFLOW')}" in said
            yield checkout
        finally:
            checkout.make("clean-volumes", "YES=1")


def superset_address(stack: Checkout) -> SupersetAddress:
    passwords = {user: stack.secrets[f"SUPERSET_{user.upper()}_PASSWORD"] for user in (ADMIN, ANALYST)}
    return SupersetAddress(stack.port("SUPERSET"), passwords)


def daily_run(stack: Checkout) -> AirflowRun:
    """Have Airflow do it now; on the files of the landing folder."""
    address = AirflowAddress(stack.port("AIRFLOW"), USER, stack.secrets["AIRFLOW_ADMIN_PASSWORD"])
    run = trigger_and_follow(address, {}, progress=Progress(), dag_id=DAILY)
    assert run.state == "success", run
    return run


def prometheus(stack: Checkout, path: str, **parameters: str) -> Any:
    url = f"http://127.0.0.1:{stack.port('PROMETHEUS')}/api/v1/{path}"
    return httpx.get(url, params=parameters, timeout=30).raise_for_status().json()["data"]


def container_ids(stack: Checkout) -> list[str]:
    return stack.compose("ps", "--all", "--quiet").split()


def states_of(stack: Checkout) -> dict[str, tuple[str, str, int]]:
    return {one["Service"]: (one["State"], one["Health"], one["ExitCode"]) for one in stack.containers()}


def are_healthy(stack: Checkout) -> bool:
    ended, stays = ("exited", "", 0), ("running", "healthy", 0)
    return all(state == (ended if name in ONE_SHOTS else stays) for name, state in states_of(stack).items())


def test_all_are_healthy(stack: Checkout) -> None:
    states = states_of(stack)
    assert {name for name, state in states.items() if state == ("exited", "", 0)} == ONE_SHOTS
    staying = {name: state for name, state in states.items() if name not in ONE_SHOTS}
    assert len(staying) == 13
    assert set(staying.values()) == {("running", "healthy", 0)}, staying


def test_the_pipeline_runs_in_the_stack(stack: Checkout, fleet: Fleet) -> None:
    """Where none of its files is named, `make pipeline` finds the stack by itself, and takes data/raw."""
    said = stack.make("pipeline")
    assert said.startswith("in the stack")
    assert re.search(r"Run \S+: succeeded", said), said
    rows = stack.rows()
    assert rows["raw"] == pl.read_csv(fleet.history).height
    assert rows["scores"] > 0
    assert rows["clickhouse"]["anomaly_scores"] == rows["scores"]


def test_airflow_does_the_daily_run(stack: Checkout, fleet: Fleet) -> None:
    before = stack.rows()
    placed = fleet.place(fleet.week, stack.folder / "data" / "landing")
    run = daily_run(stack)
    assert set(run.tasks) == {"start", "end"} | {step.name for step in STEPS}
    now = stack.rows()
    assert now["raw"] == before["raw"] + placed
    assert now["clickhouse"]["anomaly_scores"] == now["scores"] > before["scores"]


def test_superset_shows_the_dashboards(stack: Checkout) -> None:
    address = superset_address(stack)
    page = httpx.get(f"{address.url}/login/", timeout=30)
    assert page.status_code == httpx.codes.OK
    assert "Energy IoT Pipeline" in page.text
    with logged_in(address) as client:
        assert len(list_all(client, "dashboard")) == 8
        empty = []
        for chart in list_all(client, "chart"):
            answer = client.get(f"/chart/{chart['id']}/data/")
            assert answer.status_code == httpx.codes.OK, f"{chart['slice_name']}: {answer.text}"
            if not all(result["rowcount"] for result in answer.json()["result"]):
                empty.append(chart["slice_name"])
    assert empty == []
    with logged_in(address, ANALYST) as client:
        assert client.get("/database/").status_code in {httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND}


def test_superset_explains_a_meter(stack: Checkout, fleet: Fleet) -> None:
    """Its page runs the pipeline's own command, as a user of PostgreSQL who only reads."""
    meter = pl.read_csv(fleet.history)["meter_id"][0]
    address = superset_address(stack)
    with httpx.Client(base_url=address.url, timeout=60, follow_redirects=True) as client:
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get("/login/").text)
        form = {"username": ANALYST, "password": address.passwords[ANALYST]}
        client.post("/login/", data=form | ({"csrf_token": token[1]} if token else {}))
        answer = client.get(f"/explanations/{meter}")
    assert answer.status_code == httpx.codes.OK, answer.text
    assert meter in answer.text


def test_prometheus_sees_all_targets(stack: Checkout) -> None:
    def health() -> dict[str, str]:
        targets = prometheus(stack, "targets")["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in targets}

    def are_up() -> bool:
        return {job for job, state in health().items() if state == "up"} >= set(health()) - NOBODY_STANDS_IN

    wait_for(are_up, f"target that is up ({health()})", 90)
    assert len(health()) == 8
    (readings,) = prometheus(stack, "query", query="energy_iot_loaded_readings")["result"]
    assert int(readings["value"][1]) == stack.rows()["raw"]
    told = wait_for(
        lambda: prometheus(stack, "query", query="airflow_ti_successes")["result"], "figures of Airflow", 60
    )
    assert float(told[0]["value"][1]) > 0
    assert httpx.get(f"http://127.0.0.1:{stack.port('ALERTMANAGER')}/-/ready", timeout=30).is_success


def test_a_program_outside_reaches_the_stores_by_url(stack: Checkout, fleet: Fleet, tmp_path: Path) -> None:
    """As the runbook says for PostgreSQL and ClickHouse on other hosts: server mode, two addresses."""
    secrets = stack.secrets
    variables = {
        "ENERGY_IOT_BACKEND": "server",
        "ENERGY_IOT_POSTGRES_DSN": f"postgresql://energy_pipeline:{secrets['POSTGRES_PIPELINE_PASSWORD']}"
        f"@127.0.0.1:{stack.port('POSTGRES')}/energy_iot",
        "ENERGY_IOT_CLICKHOUSE_URL": f"http://{WRITER}:{secrets['CLICKHOUSE_PIPELINE_PASSWORD']}"
        f"@127.0.0.1:{stack.port('CLICKHOUSE')}",
    }
    # models are files: a copy of the folder that the stack's programs share
    home = tmp_path / "home"
    home.mkdir()
    tar = ("tar", "pipeline", "-C", "/var/lib/energy-iot", "-c", "models")
    archive = subprocess.run(
        ["docker-compose", "run", "--rm", "-T", "--entrypoint", *tar],
        cwd=stack.folder, env=stack.variables, check=True, capture_output=True,
    ).stdout  # fmt: skip
    subprocess.run(["tar", "-C", home, "-x"], input=archive, check=True)
    before = stack.rows()
    done = subprocess.run(
        [sys.executable, "-m", "energy_iot", "--home", home, "run", fleet.day],
        env=os.environ | variables, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    now = stack.rows()
    assert now["raw"] == before["raw"] + pl.read_csv(fleet.day).height
    assert now["clickhouse"]["anomaly_scores"] == now["scores"] > before["scores"]


def test_the_file_for_databases_elsewhere_leads_to_them(stack: Checkout) -> None:
    """Here they are the stack's own, by their names in its network."""
    secrets = stack.secrets
    clickhouse = f"dashboards:{secrets['CLICKHOUSE_DASHBOARDS_PASSWORD']}@clickhouse:8123"
    reader = f"energy_monitoring:{secrets['POSTGRES_MONITORING_PASSWORD']}@postgres:5432/energy_iot"
    variables = {
        "COMPOSE_FILE": f"{stack.variables['COMPOSE_FILE']}:docker/external.yml",
        "ENERGY_IOT_POSTGRES_DSN": f"postgresql://{reader}",
        "ENERGY_IOT_CLICKHOUSE_URL": f"http://{WRITER}:{secrets['CLICKHOUSE_PIPELINE_PASSWORD']}@clickhouse:8123",
        "ENERGY_IOT_MONITORING_POSTGRES_DSN": f"postgresql://{reader}",
        "ENERGY_IOT_SUPERSET_CLICKHOUSE_URL": f"clickhousedb://{clickhouse}",
        "EXTERNAL_POSTGRES_ADDRESS": "postgres:5432",
    }
    done = subprocess.run(
        ["docker-compose", "run", "--rm", "-T", "--no-deps", "pipeline", "doctor"],
        cwd=stack.folder, env=stack.variables | variables, capture_output=True, text=True,
    )  # fmt: skip
    assert "PostgreSQL: 15" in done.stdout, done.stderr
    assert "energy_monitoring is in energy_reader" in done.stdout  # and so not who the stack itself would be


def test_no_secret_is_seen_from_outside_a_container(stack: Checkout) -> None:
    """Labels, command lines, processes, logs and images; a container's variables are its own affair."""
    secrets = stack.secrets
    assert len(secrets) == 17
    docker = stack.engine.docker
    seen = {}
    for container in docker("ps", "--all", "--quiet").split():
        (told,) = json.loads(docker("inspect", container))
        config = told["Config"]
        name = config["Labels"]["com.docker.compose.service"]
        parts = [
            config["Labels"],
            config["Cmd"],
            config["Entrypoint"],
            config["Healthcheck"],
            told["Path"],
            told["Args"],
        ]
        seen[f"{name}: labels and commands"] = json.dumps(parts)
        seen[f"{name}: log"] = stack.compose("logs", "--no-color", name)
        if told["State"]["Running"]:
            seen[f"{name}: processes"] = docker("top", container, "-o", "pid,args")
    for image in OURS:
        seen[f"{image}: history"] = docker("history", "--no-trunc", image)
        seen[f"{image}: configuration"] = docker("image", "inspect", image)
    assert len(seen) > 40
    scheduler = stack.compose("ps", "--quiet", "airflow-scheduler").strip()
    assert secrets["AIRFLOW_JWT_SECRET"] in docker(
        "inspect", scheduler
    )  # in its variables: what is looked for is found
    told = [f"{place} has {name}" for place, text in seen.items() for name, value in secrets.items() if value in text]
    assert told == []


def test_our_programs_have_few_rights(stack: Checkout) -> None:
    docker = stack.engine.docker
    for service in ("airflow-scheduler", "airflow-api-server", "metrics", "superset"):
        container = stack.compose("ps", "--quiet", service).strip()
        _, *processes = docker("top", container, "-o", "pid,uid").splitlines()
        assert {process.split()[1] for process in processes} == {"10001"}, service
        (told,) = json.loads(docker("inspect", container))
        assert told["HostConfig"]["ReadonlyRootfs"] is True
        assert told["HostConfig"]["CapDrop"] == ["ALL"]
        assert {
            binding["HostIp"] for ports in told["NetworkSettings"]["Ports"].values() for binding in ports or ()
        } <= {"127.0.0.1"}
    image = json.loads(docker("image", "inspect", *OURS))
    assert all(one["Config"]["User"] == "10001:10001" for one in image)
    assert all(one["Config"]["Healthcheck"] for one in image)
    assert all(one["Config"]["Labels"]["org.opencontainers.image.title"] for one in image)


def test_stopped_and_started_again_the_data_are_there(stack: Checkout) -> None:
    before = stack.rows()
    stack.make("down")
    assert stack.containers() == []
    stack.make("up")
    assert stack.rows() == before
    test_all_are_healthy(stack)


def test_looking_at_the_stack(stack: Checkout) -> None:
    listed = stack.make("ps")
    assert listed.count("(healthy)") == len(states_of(stack)) - len(ONE_SHOTS)
    counted = stack.make("psql", typed="select 'readings: ' || count(*) from raw_data.meter_readings;\n")
    assert f"readings: {stack.rows()['raw']}\n" in counted
    assert re.match(r"superset\S* +\| ", stack.first_line("logs-superset"))
    assert re.match(r"\S+ +\| ", stack.first_line("logs"))


def test_restarted_it_becomes_healthy_again(stack: Checkout) -> None:
    before = stack.rows()
    started = stack.engine.docker("inspect", "--format", "{{.State.StartedAt}}", *container_ids(stack)).split()
    stack.make("restart")
    again = stack.engine.docker("inspect", "--format", "{{.State.StartedAt}}", *container_ids(stack)).split()
    assert not set(started) & set(again)
    wait_for(lambda: are_healthy(stack), "healthy stack", 300)
    assert stack.rows() == before


def test_a_demo_in_the_stack(stack: Checkout) -> None:
    """Its meters have the names of those that are there: what it brings is newer, and counts."""
    before = stack.rows()
    said = stack.make("demo-docker", "DEMO_METERS=40", "DEMO_DAYS=60")
    assert re.search(r"Run \S+: succeeded", said), said
    after = stack.rows()
    assert after["raw"] > before["raw"]
    assert after["clickhouse"]["anomaly_scores"] == after["scores"] > 0


def test_a_backup_makes_a_lost_stack_again(stack: Checkout, fleet: Fleet) -> None:
    before = stack.rows()
    with logged_in(superset_address(stack)) as client:
        made = client.post("/dashboard/", json={"dashboard_title": "Of the crew"}).raise_for_status().json()["id"]
    said = stack.make("backup", "TO=backups/test")
    folder = stack.folder / "backups" / "test"
    assert str(Path("backups") / "test") in said
    assert not [
        name
        for file in folder.iterdir()
        for name, value in stack.secrets.items()
        if value.encode() in file.read_bytes()
    ]

    for file in (stack.folder / "data" / "landing").iterdir():
        file.unlink()  # an Airflow that knows nothing would load it
    stack.make("clean-volumes", "YES=1")
    assert stack.engine.docker("volume", "ls", "--quiet").split() == []
    stack.make("up")
    assert stack.rows()["raw"] == 0

    said = stack.make("restore", "FROM=backups/test")
    assert "rows as before" in said
    assert stack.rows() == before
    with logged_in(superset_address(stack)) as client:
        assert client.get(f"/dashboard/{made}").raise_for_status().json()["result"]["dashboard_title"] == "Of the crew"
    placed = fleet.place(fleet.last_day, stack.folder / "data" / "landing")
    assert daily_run(stack).tasks["ml_score"] == "success"  # with the model that was restored
    now = stack.rows()
    assert now["raw"] == before["raw"] + placed
    assert now["clickhouse"]["anomaly_scores"] == now["scores"] > before["scores"]
