"""The configuration of the monitoring programs: the files of monitoring/, with the ports and receivers of this machine.

Nothing here talks to a program; serving/monitoring.py starts them on these files, and containers are given them.
"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import yaml

from energy_iot.errors import UsageError
from energy_iot.serving.local_server import write_secret
from energy_iot.settings import PROJECT_DIR, Settings

MONITORING_DIR: Final = PROJECT_DIR / "monitoring"
RUNBOOK: Final = "docs/05_runbook.md"
IMPLICIT_TLS_PORT: Final = 465  # the only one on which Alertmanager begins with TLS
GROUP_INTERVALS: Final = 20  # between two messages on the same alert; 5 minutes at the usual interval

Config = dict[str, Any]


def write_configuration(
    folder: Path, settings: Settings, targets: Mapping[str, str], *, machine: str, interval_seconds: int
) -> None:
    """Write the files of Prometheus and Alertmanager, the rules and the dashboards.

    Args:
        folder: Where to; prometheus.yml, alertmanager.yml (it holds secrets), rules/ and dashboards/ are replaced.
        settings: Name who is told, and where people read the runbook.
        targets: host:port by job; jobs without one are left out.
        machine: Its name: what series are known by.
        interval_seconds: Between two scrapes, and between two evaluations of the rules.

    Raises:
        UsageError: The mail server's address is of no use.
    """
    rules, dashboards = folder / "rules", folder / "dashboards"
    for subfolder in (rules, dashboards):
        subfolder.mkdir(exist_ok=True)
        for old in subfolder.iterdir():  # the folder itself may be a volume
            old.unlink()
    for file in sorted((MONITORING_DIR / "prometheus" / "rules").glob("*.yml")):
        (rules / file.name).write_text(_dump(rules_config(read_config(f"prometheus/rules/{file.name}"), settings)))
    for file in sorted((MONITORING_DIR / "grafana" / "dashboards").glob("*.json")):
        (dashboards / file.name).write_text(dashboard_text(file.read_text(encoding="utf-8"), settings))
    prometheus = prometheus_config(
        read_config("prometheus/prometheus.yml"),
        targets,
        machine=machine,
        rules=rules,
        interval_seconds=interval_seconds,
    )
    (folder / "prometheus.yml").write_text(_dump(prometheus))
    alertmanager = alertmanager_config(
        read_config("alertmanager/alertmanager.yml"), settings, interval_seconds=interval_seconds
    )
    write_secret(folder / "alertmanager.yml", _dump(alertmanager))


def _dump(config: Config) -> str:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def read_config(name: str) -> Config:
    """A YAML file of monitoring/."""
    found: Config = yaml.safe_load((MONITORING_DIR / name).read_text(encoding="utf-8"))
    return found


def prometheus_config(
    template: Config, targets: Mapping[str, str], *, machine: str, rules: Path, interval_seconds: int
) -> Config:
    """Prometheus's configuration with the targets that there are.

    Args:
        template: Of monitoring/prometheus/prometheus.yml.
        targets: host:port by job; jobs without one are left out.
        machine: Its name: what series are known by, since ports are others at each start.
        rules: Folder of the rule files.
        interval_seconds: Between two scrapes, and between two evaluations.
    """
    config = deepcopy(template)
    config["global"] = {
        "scrape_interval": f"{interval_seconds}s",
        "scrape_timeout": f"{interval_seconds * 800}ms",
        "evaluation_interval": f"{interval_seconds}s",
    }
    config["rule_files"] = [str(rules / "*.yml")]
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [targets["alertmanager"]]}]}]
    config["scrape_configs"] = [
        job | {"static_configs": [{"targets": [targets[job["job_name"]]], "labels": {"instance": machine}}]}
        for job in config["scrape_configs"]
        if job["job_name"] in targets
    ]
    return config


def rules_config(template: Config, settings: Settings) -> Config:
    """A rule file whose links lead to the runbook as people here read it."""
    config = deepcopy(template)
    if settings.runbook_url is None:
        return config
    for group in config["groups"]:
        for rule in group["rules"]:
            link = rule.get("annotations", {}).get("runbook_url")
            if link:
                rule["annotations"]["runbook_url"] = link.replace(RUNBOOK, settings.runbook_url)
    return config


def dashboard_text(template: str, settings: Settings) -> str:
    """A dashboard's file whose link leads to the runbook as people here read it."""
    return template if settings.runbook_url is None else template.replace(RUNBOOK, settings.runbook_url)


def alertmanager_config(template: Config, settings: Settings, *, interval_seconds: int) -> Config:
    """Alertmanager's configuration with the receivers of the settings; holds their secrets.

    Args:
        template: Of monitoring/alertmanager/alertmanager.yml.
        settings: alert_webhook_url, alert_email_to, alert_email_from, alert_smtp_url.
        interval_seconds: Between two evaluations: messages wait for what begins together, and for what follows.

    Raises:
        UsageError: The mail server's address is not set, or none that Alertmanager can use.
    """
    config = deepcopy(template)
    config["route"] |= {
        "group_wait": f"{interval_seconds}s",
        "group_interval": f"{interval_seconds * GROUP_INTERVALS}s",
    }
    (receiver,) = config["receivers"]
    if settings.alert_webhook_url is not None:
        receiver["slack_configs"] = [
            {
                "api_url": settings.alert_webhook_url.get_secret_value(),
                "send_resolved": True,
                "title": "{{ .Status | toUpper }}: {{ .CommonLabels.alertname }}",
                "text": _TEXT,
            }
        ]
    if settings.alert_email_to is not None:
        receiver["email_configs"] = [_mail(settings)]
    return config


_TEXT: Final = (
    "{{ range .Alerts }}{{ .Annotations.summary }}\n{{ .Annotations.description }}\n"
    "what to do: {{ .Annotations.runbook_url }}\n{{ end }}"
)


def _mail(settings: Settings) -> Config:
    address = urlsplit(settings.alert_smtp_url.get_secret_value() if settings.alert_smtp_url else "")
    if address.scheme not in {"smtp", "smtps"} or not address.hostname:
        raise UsageError("alert_smtp_url is no smtp:// or smtps:// address", fix="smtp://user:password@host:587")
    port = address.port or (IMPLICIT_TLS_PORT if address.scheme == "smtps" else 587)
    if address.scheme == "smtps" and port != IMPLICIT_TLS_PORT:
        raise UsageError(
            f"Alertmanager begins with TLS on port {IMPLICIT_TLS_PORT} only, and alert_smtp_url names {port}",
            fix=f"use smtp:// with STARTTLS, or port {IMPLICIT_TLS_PORT}",
        )
    login = {}
    if address.username:
        login = {"auth_username": unquote(address.username), "auth_password": unquote(address.password or "")}
    return {
        "to": settings.alert_email_to,
        "from": settings.alert_email_from,
        "smarthost": f"{address.hostname}:{port}",
        "require_tls": bool(login) or address.scheme == "smtps",  # a password goes over TLS or not at all
        "send_resolved": True,
        "headers": {"subject": "{{ .Status | toUpper }}: {{ .CommonLabels.alertname }}"},
        "html": "",
        "text": _TEXT,
        **login,
    }


def collectd_config(folder: Path, *, statsd_port: int, port: int, interval_seconds: int) -> str:
    """Configuration of collectd as a bridge: what Airflow sends it by StatsD, Prometheus fetches.

    Args:
        folder: Of its state.
        statsd_port: UDP, on the loopback address.
        port: Where Prometheus asks.
        interval_seconds: Between two looks at the counts.
    """
    return f"""\
BaseDir "{folder}"
PIDFile "{folder}/collectd.pid"
Interval {interval_seconds}
LoadPlugin logfile
<Plugin logfile>
    LogLevel "warning"
    File stdout
</Plugin>
LoadPlugin statsd
<Plugin statsd>
    Host "127.0.0.1"
    Port "{statsd_port}"
</Plugin>
LoadPlugin write_prometheus
<Plugin write_prometheus>
    Host "127.0.0.1"
    Port "{port}"
</Plugin>
"""
