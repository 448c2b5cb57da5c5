"""The stack's files hold together: compose takes them, no service lacks what all have, and .env.example names all."""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from typer.main import get_command

from energy_iot.cli import app
from energy_iot.serving.containers import read_targets
from energy_iot.serving.front_file import READER, WRITER
from energy_iot.serving.grafana import IMAGE as GRAFANA_IMAGE
from energy_iot.serving.grafana import container_environment
from energy_iot.serving.monitoring_config import read_config
from energy_iot.settings import ENV_PREFIX, Settings, load_settings, setting_origins
from energy_iot.storage.postgres import SCHEMAS
from energy_iot.storage.roles import ROLES

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
EXTERNAL = ROOT / "docker" / "external.yml"
EXAMPLE = dotenv_values(ROOT / ".env.example")
PLACES = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
COMPOSE = shutil.which("docker-compose", path=PLACES)
HADOLINT = shutil.which("hadolint", path=PLACES)
NO_COMPOSE = "docker-compose is not installed: make install"
NO_HADOLINT = "hadolint is not installed: make install"
PROFILES = ("core", "bi", "monitoring")
TEXT = FILE.read_text(encoding="utf-8")
MANUAL = "pipeline"  # started by `make pipeline` and its like, never by `up`
LOOPBACK = "127.0.0.1"


def set_up(folder: Path) -> Path:
    """A folder with the .env that `make setup` writes."""
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / ".env.example", folder)
    subprocess.run(["sh", ROOT / "docker" / "setup.sh"], cwd=folder, check=True, capture_output=True)
    return folder / ".env"


def compose(
    env_file: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    assert COMPOSE is not None
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [COMPOSE, "--file", FILE, "--env-file", env_file, *arguments],
        env=kept | dict(variables or {}),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return set_up(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="module")
def stack(env_file: Path) -> dict[str, Any]:
    """The whole of it, as compose understands it."""
    if COMPOSE is None:
        pytest.skip(NO_COMPOSE)
    done = compose(env_file, "--profile", "*", "config", "--format", "json")
    assert not done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert len(found["services"]) > 15
    return found


def services(stack: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from stack["services"].items()


def is_one_shot(service: Mapping[str, Any]) -> bool:
    return bool(service["restart"] == "no")


# --- compose takes it -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(COMPOSE is None, reason=NO_COMPOSE)
@pytest.mark.parametrize("profiles", [*PROFILES, ",".join(PROFILES)])
def test_each_profile_is_whole(env_file: Path, profiles: str) -> None:
    variables = {"COMPOSE_PROFILES": profiles}
    done = compose(env_file, "config", "--quiet", variables=variables)
    assert (done.returncode, done.stderr) == (0, "")
    started = compose(env_file, "config", "--services", variables=variables).stdout.split()
    assert len(started) > 4
    assert MANUAL not in started


@pytest.mark.skipif(COMPOSE is None, reason=NO_COMPOSE)
def test_without_a_profile_all_start(env_file: Path, stack: dict[str, Any]) -> None:
    started = compose(env_file, "config", "--services").stdout.split()
    assert set(started) == set(stack["services"]) - {MANUAL}
    assert {name for _, service in services(stack) for name in service["profiles"]} == {*PROFILES, "command"}


REQUIRED = sorted(set(re.findall(r"\$\{(\w+):\?([^}]*)\}", TEXT)))


def test_what_must_be_set_is_a_secret_that_setup_makes(env_file: Path) -> None:
    assert len(REQUIRED) > 10
    values = dotenv_values(env_file)
    for name, message in REQUIRED:
        assert message == "make setup writes it"
        assert len(values[name] or "") >= 40, name
    secrets = {name for name, value in values.items() if value and name != "COMPOSE_PROFILES"}
    assert secrets == {name for name, _ in REQUIRED}
    assert len({values[name] for name in secrets}) == len(secrets)


@pytest.mark.skipif(COMPOSE is None, reason=NO_COMPOSE)
@pytest.mark.parametrize("name", [name for name, _ in REQUIRED])
def test_a_missing_secret_stops_compose_with_what_to_type(env_file: Path, tmp_path: Path, name: str) -> None:
    lacking = tmp_path / ".env"
    lacking.write_text(re.sub(rf"^{name}=.*$", f"{name}=", env_file.read_text(), flags=re.MULTILINE))
    done = compose(lacking, "config", "--quiet")
    assert done.returncode != 0
    assert f"required variable {name} is missing a value: make setup writes it" in done.stderr


def test_env_example_names_each_variable_of_the_files() -> None:
    used = set(re.findall(r"\$\{(\w+)", TEXT + EXTERNAL.read_text(encoding="utf-8")))
    of_secrets = {secret["environment"] for secret in yaml.safe_load(TEXT)["secrets"].values()}
    assert len(used) > 20
    containers = {name for name in EXAMPLE if not name.startswith(ENV_PREFIX)}
    assert {name for name in used | of_secrets if not name.startswith(ENV_PREFIX)} == containers - {"COMPOSE_PROFILES"}
    assert {name for name in used if name.startswith(ENV_PREFIX)} <= set(EXAMPLE)
    assert {name for name in EXAMPLE if EXAMPLE[name]} == {"COMPOSE_PROFILES"}


@pytest.mark.skipif(COMPOSE is None, reason=NO_COMPOSE)
def test_with_databases_elsewhere_nothing_asks_for_ours(env_file: Path) -> None:
    dsn, clickhouse = "postgresql://u:p@far:5432/energy", "http://u:p@far:8123"
    asked = {
        "ENERGY_IOT_POSTGRES_DSN": dsn,
        "ENERGY_IOT_CLICKHOUSE_URL": clickhouse,
        "ENERGY_IOT_MONITORING_POSTGRES_DSN": "postgresql://reader:p@far:5432/energy",
        "ENERGY_IOT_SUPERSET_CLICKHOUSE_URL": "clickhousedb://reader:p@far:8123",
        "EXTERNAL_POSTGRES_ADDRESS": "far:5432",
    }
    done = compose(env_file, "--file", str(EXTERNAL), "config", "--format", "json", variables=asked)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["services"]
    assert len(found) > 10
    assert not {"postgres", "clickhouse"} & set(found)
    for name, service in found.items():
        text = json.dumps(service.get("environment"))
        assert "@postgres:" not in text, name
        assert "@clickhouse:" not in text, name
        assert not {"postgres", "clickhouse"} & set(service.get("depends_on") or {}), name
    assert found["airflow-scheduler"]["environment"]["ENERGY_IOT_POSTGRES_DSN"] == dsn
    lacking = compose(env_file, "--file", str(EXTERNAL), "config", "--quiet")
    assert lacking.returncode != 0
    assert "ENERGY_IOT_POSTGRES_DSN is missing a value: is not set, see docs/05_runbook.md" in lacking.stderr


# --- what each service has ------------------------------------------------------------------------------------------


def test_each_service_that_stays_has_a_health_check(stack: dict[str, Any]) -> None:
    staying = {name: service["healthcheck"] for name, service in services(stack) if not is_one_shot(service)}
    assert len(staying) > 12
    for name, check in staying.items():
        assert check["test"][0] == "CMD", name
        assert {"interval", "timeout", "retries", "start_period"} <= set(check), name


def test_each_service_is_bounded_and_comes_back(stack: dict[str, Any]) -> None:
    for name, service in services(stack):
        assert int(service["mem_limit"]) >= 128 * 1024**2, name
        assert service["logging"] == {"driver": "json-file", "options": {"max-file": "3", "max-size": "10m"}}, name
        assert service["restart"] in {"no", "unless-stopped"}, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
    waited_for = {name for _, service in services(stack) for name in service.get("depends_on", {})}
    one_shots = {name for name, service in services(stack) if is_one_shot(service)}
    assert one_shots - waited_for == {MANUAL}


def test_who_waits_waits_for_health_or_for_the_end(stack: dict[str, Any]) -> None:
    waits = [
        (name, needed, terms)
        for name, service in services(stack)
        for needed, terms in service.get("depends_on", {}).items()
    ]
    assert len(waits) > 10
    for name, needed, terms in waits:
        if not terms["required"]:
            continue
        ends = is_one_shot(stack["services"][needed])
        assert terms["condition"] == ("service_completed_successfully" if ends else "service_healthy"), (name, needed)


def test_each_image_is_pinned(stack: dict[str, Any]) -> None:
    for name, service in services(stack):
        _, _, tag = service["image"].rpartition(":")
        assert re.search(r"\d+\.\d+", tag), f"{name}: {service['image']}"
    assert stack["services"]["grafana"]["image"] == GRAFANA_IMAGE
    assert re.search(r"^ARG BASE_IMAGE=python:3\.\d+-", dockerfile().read_text(), re.MULTILINE)


def test_ports_are_published_on_the_loopback_address_unless_a_setting_says_otherwise(
    stack: dict[str, Any], env_file: Path
) -> None:
    published = {
        (name, port["published"]): port["host_ip"]
        for name, service in services(stack)
        for port in service.get("ports", [])
    }
    assert len(published) >= 8
    assert set(published.values()) == {LOOPBACK}
    asked = {
        f"{name.upper()}": str(31000 + number) for number, name in enumerate(sorted(EXAMPLE)) if name.endswith("_PORT")
    }
    done = compose(
        env_file, "--profile", "*", "config", "--format", "json", variables={"BIND_ADDRESS": "192.0.2.7"} | asked
    )
    moved = [port for _, service in services(json.loads(done.stdout)) for port in service.get("ports", [])]
    assert {port["host_ip"] for port in moved} == {"192.0.2.7"}
    assert {port["published"] for port in moved} == set(asked.values())


def test_our_images_run_without_rights_on_a_root_that_cannot_be_written(stack: dict[str, Any]) -> None:
    ours = {name: service for name, service in services(stack) if service["image"].startswith("energy-iot/")}
    assert len(ours) >= 8
    for name, service in ours.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
    users = re.findall(r"^USER (.+)$", dockerfile().read_text(), re.MULTILINE)
    assert users == ["10001:10001"]


def test_networks_are_tiers(stack: dict[str, Any]) -> None:
    members: dict[str, set[str]] = {}
    for name, service in services(stack):
        for network in service.get("networks") or {}:
            members.setdefault(network, set()).add(name)
    assert set(members) == {"databases", "airflow", "dashboards", "monitoring"} == set(stack["networks"])
    assert "metadata-postgres" not in members["databases"] | members["monitoring"]
    assert not {"alertmanager", "prometheus", "cadvisor", "node-exporter"} & (members["databases"] | members["airflow"])


# --- secrets --------------------------------------------------------------------------------------------------------


def test_secrets_are_only_in_variables_and_files(stack: dict[str, Any], env_file: Path) -> None:
    values = [value for name, value in dotenv_values(env_file).items() if name in dict(REQUIRED)]
    for name, service in services(stack):
        rest = json.dumps({key: value for key, value in service.items() if key != "environment"})
        assert not [value for value in values if value and value in rest], name


def test_setup_keeps_what_is_set_and_completes_what_is_not(tmp_path: Path) -> None:
    env_file = set_up(tmp_path / "stack")
    first = dotenv_values(env_file)
    assert env_file.stat().st_mode & 0o777 == 0o600
    lines = [f"{name}={value or ''}" for name, value in first.items() if name != "AIRFLOW_JWT_SECRET"]
    lines = [line for line in lines if not line.startswith(("AIRFLOW_API_SECRET=", "POSTGRES_PASSWORD="))]
    env_file.write_text(
        "\n".join(["# ours", *lines, "AIRFLOW_API_SECRET=", "ENERGY_IOT_TREES=20", "POSTGRES_PASSWORD=chosen"])
    )
    env_file.chmod(0o644)
    done = subprocess.run(
        ["sh", ROOT / "docker" / "setup.sh"], cwd=env_file.parent, capture_output=True, text=True, check=True
    )
    second = dotenv_values(env_file)
    assert "2 secrets made" in done.stdout
    changed = {name for name in second if second[name] != first.get(name)}
    assert changed == {"AIRFLOW_JWT_SECRET", "AIRFLOW_API_SECRET", "ENERGY_IOT_TREES", "POSTGRES_PASSWORD"}
    assert second["POSTGRES_PASSWORD"] == "chosen"
    assert env_file.read_text().startswith("# ours\n")
    assert env_file.stat().st_mode & 0o777 == 0o600
    assert not any(value in done.stdout + done.stderr for name, value in second.items() if name in dict(REQUIRED))


def test_native_commands_stay_embedded_beside_the_env_file_of_the_stack(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(env_file.parent)
    assert load_settings() == Settings()
    assert load_settings().backend == "embedded"
    assert set(setting_origins().values()) == {"default"}


# --- one home for each thing ----------------------------------------------------------------------------------------


def dockerfile() -> Path:
    return ROOT / "docker" / "pipeline" / "Dockerfile"


@pytest.mark.skipif(HADOLINT is None, reason=NO_HADOLINT)
def test_hadolint_has_nothing_to_say() -> None:
    assert HADOLINT is not None
    files = sorted([*ROOT.glob("docker/**/Dockerfile"), *ROOT.glob("tests/compose/**/Dockerfile")])
    assert dockerfile() in files
    done = subprocess.run([HADOLINT, "--no-color", *files], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_commands_of_our_images_exist(stack: dict[str, Any]) -> None:
    commands = get_command(app).commands
    asked = [service["command"] for _, service in services(stack) if service["image"].startswith("energy-iot/")]
    assert len(asked) >= 8
    for name, *rest in asked:
        assert name in commands
        if hasattr(commands[name], "commands"):
            assert rest[0] in commands[name].commands


def test_variables_of_our_images_are_settings(stack: dict[str, Any]) -> None:
    names = {
        name.removeprefix(ENV_PREFIX).lower()
        for _, service in services(stack)
        for name in service.get("environment", {})
        if name.startswith(ENV_PREFIX)
    }
    assert len(names) > 8
    assert names <= set(Settings.model_fields)


def test_each_job_of_prometheus_has_a_service_as_its_target(stack: dict[str, Any]) -> None:
    command = stack["services"]["monitoring-config"]["command"]
    targets = read_targets([part.removeprefix("--target=") for part in command if part.startswith("--target=")])
    assert set(targets) == {job["job_name"] for job in read_config("prometheus/prometheus.yml")["scrape_configs"]}
    for target in targets.values():
        assert "monitoring" in stack["services"][target.partition(":")[0]]["networks"], target


def test_grafana_has_the_variables_of_its_provisioning(stack: dict[str, Any]) -> None:
    native = container_environment({"grafana": 1, "prometheus": 2}, "password", "host=db user=reader")
    asked = {name for name in native if not name.startswith("GF_")}
    assert asked
    assert asked <= set(stack["services"]["grafana"]["environment"])


def test_the_first_start_of_postgresql_makes_our_schemas_and_roles() -> None:
    text = (ROOT / "docker" / "postgres" / "init.sql").read_text()
    assert tuple(re.findall(r"create schema (\w+);", text)) == SCHEMAS
    assert tuple(re.findall(r"create role (\w+) nologin;", text)) == ROLES
    secrets = yaml.safe_load(TEXT)["secrets"]
    for file in ("init.sql", "init_metadata.sql"):
        named = re.findall(r"/run/secrets/(\w+)", (ROOT / "docker" / "postgres" / file).read_text())
        assert named
        assert set(named) <= set(secrets)


def test_clickhouse_knows_no_user_without_a_password() -> None:
    users = ET.parse(ROOT / "docker" / "clickhouse" / "users.xml").getroot()
    named = {user.tag: user for user in users.find("users") or ()}
    assert set(named) == {WRITER, READER}
    variables = yaml.safe_load(TEXT)["services"]["clickhouse"]["environment"]
    for user in named.values():
        password = user.find("password")
        assert password is not None
        assert password.text is None
        assert password.attrib["from_env"] in variables
        assert users.find(f"profiles/{user.findtext('profile')}") is not None
        assert users.find(f"quotas/{user.findtext('quota')}") is not None
    assert users.findtext("profiles/dashboards/readonly") == "2"
    assert users.findtext("profiles/dashboards/allow_ddl") == "0"
    assert int(users.findtext("quotas/dashboards/interval/queries") or 0) > 0
    limits = ET.parse(ROOT / "docker" / "clickhouse" / "config.xml").getroot()
    assert 0 < float(limits.findtext("max_server_memory_usage_to_ram_ratio") or 0) < 1


def test_nothing_private_goes_into_an_image() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    allowed = {line.removeprefix("!") for line in patterns if line.startswith("!")}
    assert all((ROOT / name).exists() for name in allowed)
    assert not {name for name in allowed if name.startswith((".", "data", "tests", "docs"))}
    assert "**/.env*" in patterns
