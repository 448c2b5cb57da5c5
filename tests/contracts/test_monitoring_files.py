"""Rules, dashboards, runbook and metrics agree: what is asked for exists, and each alert says what to do."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as grafana

from energy_iot.reporting.metric_facts import Facts, LoadedFacts, RunFacts
from energy_iot.reporting.metrics import PREFIX, metrics_of
from energy_iot.serving.monitoring import PROGRAMS
from energy_iot.settings import PROJECT_DIR, Settings
from monitoring.grafana.build import DASHBOARDS, to_json
from monitoring.grafana.queries import questions, read_dashboards

MONITORING = PROJECT_DIR / "monitoring"
RULES = MONITORING / "prometheus" / "rules"
PROMTOOL = shutil.which("promtool")
AMTOOL = shutil.which("amtool")
NO_PROMTOOL = "promtool is not installed: apt-get install prometheus"
NO_AMTOOL = "amtool is not installed: apt-get install prometheus-alertmanager"
# of programs of others; a test with the real ones asks for their metrics too
OTHERS = re.compile(r"(node|pg|container|process|scrape|airflow)_\w+|up|ALERTS")
WORDS = frozenset(
    {"abs", "and", "avg", "bool", "by", "count", "ignoring", "increase", "max", "on", "or", "rate", "sort_desc", "sum",
     "time", "unless", "vector", "without"}
)  # fmt: skip


def rules() -> Iterator[dict[str, Any]]:
    for file in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
EXPRESSIONS = [rule["expr"] for rule in rules()] + [
    asked.target["expr"] for asked in questions() if "expr" in asked.target
]


def metric_names() -> set[str]:
    """All that we tell, whether there is a value of it or not."""
    nothing = Facts(RunFacts(0, 0, 0, 0, None, None, None, None), [], LoadedFacts(0, 0, 0, None), {}, [], None, [])
    families = metrics_of(nothing, Settings())
    return {family.name for family in families} | {f"{PREFIX}up", f"{PREFIX}build_info"}


def names_in(expression: str) -> set[str]:
    """Names of metrics in PromQL: what is left without labels, texts, numbers and words of the language."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", expression)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"[a-zA-Z_:][\w:]*", bare)) - WORDS


def test_names_in_finds_names() -> None:
    expression = 'sum without(a) (rate(b_total{c="d"}[1m])) > ignoring(e) f:g / 3'
    assert names_in(expression) == {"b_total", "f:g"}


def test_there_is_something_to_compare() -> None:
    assert len(ALERTS) > 10
    assert len(RECORDED) > 5
    assert len(EXPRESSIONS) > 60
    assert len(metric_names()) > 40


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_expression_names_metrics_that_exist(expression: str) -> None:
    names = names_in(expression)
    assert names
    unknown = {name for name in names - metric_names() - RECORDED if not OTHERS.fullmatch(name)}
    assert not unknown


@pytest.mark.parametrize("name", sorted(metric_names()))
def test_each_metric_is_looked_at(name: str) -> None:
    """In a rule or a panel; the others are listed here, each for people who ask for more."""
    for_people = {"build_info", "loaded_files", "loaded_readings", "rejected_lines", "step_attempts", "step_warnings",
                  "latest_day_meters", "last_run_start_timestamp_seconds", "validation_timestamp_seconds",
                  "clickhouse_table_bytes", "clickhouse_table_parts", "clickhouse_up"}  # fmt: skip
    is_used = any(name in names_in(expression) for expression in EXPRESSIONS)
    assert is_used != (name.removeprefix(PREFIX) in for_people)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    headings = re.findall(r"^#+ (.+)$", (PROJECT_DIR / page).read_text(), re.MULTILINE)
    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings


def test_the_runbook_tells_of_no_alert_that_is_not_there() -> None:
    text = (PROJECT_DIR / "docs" / "05_runbook.md").read_text()
    alerts = text.split("\n## Alerts\n")[1].split("\n## ")[0]
    assert re.findall(r"^### (.+)$", alerts, re.MULTILINE) == [rule["alert"] for rule in ALERTS]


def test_each_alert_is_tested() -> None:
    tests = yaml.safe_load((MONITORING / "prometheus" / "tests" / "alerts.yml").read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    fired = {case["alertname"] for case in cases if "exp_alerts" in case}
    quiet = {case["alertname"] for case in cases if "exp_alerts" not in case}
    assert fired == {rule["alert"] for rule in ALERTS}
    assert quiet == fired


@pytest.mark.skipif(PROMTOOL is None, reason=NO_PROMTOOL)
@pytest.mark.parametrize(
    "arguments", [("check", "config", "prometheus.yml"), ("test", "rules", "tests/alerts.yml")], ids=" ".join
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=MONITORING / "prometheus", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(AMTOOL is None, reason=NO_AMTOOL)
def test_amtool_agrees() -> None:
    file = MONITORING / "alertmanager" / "alertmanager.yml"
    done = subprocess.run(["amtool", "check-config", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_program_has_a_job() -> None:
    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    jobs = [job["job_name"] for job in config["scrape_configs"]]
    assert set(jobs) == {"pipeline", "clickhouse", "containers", *PROGRAMS}
    assert len(jobs) == len(set(jobs))


# --- Grafana --------------------------------------------------------------------------------------------------------


def test_the_dashboards_are_what_the_code_makes() -> None:
    assert set(read_dashboards()) == set(DASHBOARDS)
    for name, built in DASHBOARDS.items():
        file = MONITORING / "grafana" / "dashboards" / f"{name}.json"
        assert file.read_text() == to_json(built), f"{file.name} is old: make grafana-dashboards"


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_nothing_in_a_dashboard_is_unknown_to_grafana(name: str) -> None:
    """Read by Grafana's own classes and written again, it is the same: no field of it is lost."""
    given = read_dashboards()[name]
    read = json.loads(json.dumps(grafana.Dashboard.from_json(given), cls=JSONEncoder))
    read.pop("style")  # the class adds it; Grafana knows it no more
    assert _without_sql(read) == _without_sql(given)


def _without_sql(given: dict[str, Any]) -> dict[str, Any]:
    """The SDK has no class for queries of PostgreSQL; what they ask is tested with the real one."""
    panels = [
        {**panel, "targets": [target for target in panel.get("targets", []) if "rawSql" not in target]}
        for panel in given["panels"]
    ]
    return {**given, "panels": panels}


def test_dashboards_and_panels_have_names_of_their_own() -> None:
    uids = [dashboard["uid"] for dashboard in read_dashboards().values()]
    assert len(set(uids)) == len(uids) == 3
    for dashboard in read_dashboards().values():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
        assert len(set(places)) == len(places)
        assert {link["type"] for link in dashboard["links"]} == {"dashboards", "link"}


@pytest.mark.parametrize("asked", questions(), ids=str)
def test_each_panel_is_described_and_has_a_unit(asked: Any) -> None:
    assert asked.panel["description"].endswith(".")
    assert asked.panel["type"] == "table" or asked.panel["fieldConfig"]["defaults"]["unit"]


def test_panels_name_data_sources_that_are_provisioned() -> None:
    provisioning = MONITORING / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "energy_iot.yml").read_text())["datasources"]
    known = {source["uid"]: source["type"] for source in sources}
    named = {
        (part["datasource"]["uid"], part["datasource"]["type"])
        for asked in questions()
        for part in (asked.panel, asked.target)
    }
    assert named == set(known.items())
    secrets = [secret for source in sources for secret in source.get("secureJsonData", {}).values()]
    assert secrets == ["$POSTGRES_PASSWORD"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "energy_iot.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
