"""The Grafana dashboards as code: `make grafana-dashboards` writes them to monitoring/grafana/dashboards/.

What is asked of Prometheus are metrics of reporting/metrics.py, recording rules and exporters; PostgreSQL is asked for
what has a history in tables of its own. A test asks each query of running servers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)

FOLDER: Final = Path(__file__).parent / "dashboards"
PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="energy-iot-prometheus")
POSTGRES: Final = DataSourceRef(type_val="grafana-postgresql-datasource", uid="energy-iot-postgres")
TAG: Final = "energy-iot"
RUNBOOK: Final = "docs/05_runbook.md"  # replaced by the setting runbook_url when the dashboards are served

GREEN, YELLOW, RED, GREY = "green", "yellow", "red", "text"

Panel = stat.Panel | timeseries.Panel | bargauge.Panel | table.Panel
Steps = Sequence[tuple[float | None, str]]  # value from which a colour holds; the first has none
Query = tuple[str, str]  # an expression, and how its series are called


@dataclass
class SqlQuery(Dataquery):
    """A query of Grafana's PostgreSQL data source, which the SDK has no class for."""

    sql: str
    is_series: bool = False
    ref_id: str = "A"

    def to_json(self) -> dict[str, Any]:
        """As Grafana stores it."""
        return {
            "refId": self.ref_id,
            "datasource": POSTGRES,
            "format": "time_series" if self.is_series else "table",
            "rawQuery": True,
            "editorMode": "code",
            "rawSql": self.sql,
        }


class SqlTarget(Builder[Dataquery]):
    """A builder of a `SqlQuery`."""

    def __init__(self, sql: str, *, is_series: bool = False) -> None:
        self._query = SqlQuery(" ".join(sql.split()), is_series)

    def build(self) -> SqlQuery:
        """The query."""
        return self._query


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    """Colours by value."""
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=colour) for value, colour in steps])
    )


def target(expression: str, legend: str, ref_id: str, *, now: bool) -> prometheus.Dataquery:
    """A query of Prometheus, for its value now or for a range."""
    query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(ref_id).datasource(PROMETHEUS)
    return query.instant() if now else query.range()


def number(
    title: str,
    description: str,
    expression: str,
    *,
    unit: str = units.Short,
    steps: Steps = ((None, GREY),),
    name: str | None = None,
    decimals: int | None = None,
) -> stat.Panel:
    """One value, now; with `name` the label of the series is shown instead."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .with_target(target(expression, name or "", "A", now=True))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .unit(unit)
        .thresholds(thresholds(steps))
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.NAME if name else BigValueTextMode.VALUE)
        .no_value("-")
        .height(4)
        .span(4)
    )
    return panel if decimals is None else panel.decimals(decimals)


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str = units.Short,
    span: int = 12,
    minimum: float | None = 0,
    maximum: float | None = None,
    steps: Steps | None = None,
) -> timeseries.Panel:
    """Values over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .line_width(1)
        .fill_opacity(10)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .height(8)
        .span(span)
    )
    for place, (expression, legend) in enumerate(queries):
        panel = panel.with_target(target(expression, legend, chr(ord("A") + place), now=False))
    if minimum is not None:
        panel = panel.min(minimum)
    if maximum is not None:
        panel = panel.max(maximum)
    return panel if steps is None else panel.thresholds(thresholds(steps))


def sql_lines(title: str, description: str, sql: str, *, unit: str = units.Short, span: int = 12) -> timeseries.Panel:
    """Values over time from PostgreSQL."""
    panel = lines(title, description, unit=unit, span=span).datasource(POSTGRES)
    return panel.with_target(SqlTarget(sql, is_series=True))


def bars(
    title: str, description: str, expression: str, legend: str, *, unit: str = units.Short, span: int = 12,
    steps: Steps = ((None, GREEN),), maximum: float | None = None,
) -> bargauge.Panel:  # fmt: skip
    """One bar for each series, now."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .with_target(target(expression, legend, "A", now=True))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .orientation(VizOrientation.HORIZONTAL)
        .unit(unit)
        .thresholds(thresholds(steps))
        .min(0)
        .height(8)
        .span(span)
    )
    return panel if maximum is None else panel.max(maximum)


def sql_rows(title: str, description: str, sql: str, *, span: int = 24) -> table.Panel:
    """A table from PostgreSQL."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(POSTGRES)
        .with_target(SqlTarget(sql))
        .show_header(True)
        .height(8)
        .span(span)
    )


def page(title: str, uid: str, description: str, rows: dict[str, list[Panel]]) -> dashboard.Dashboard:
    """A dashboard with its panels in rows, linked to the others and to the runbook."""
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time("now-24h", "now")
        .timezone("utc")
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
        )
        .link(
            dashboard.DashboardLink("Runbook").type(DashboardLinkType.LINK).url(RUNBOOK).icon("doc").target_blank(True)
        )
    )
    ids = count(1)
    for name, panels in rows.items():
        built = built.with_row(dashboard.Row(name).id(next(ids)))
        for panel in panels:
            built = built.with_panel(panel.id(next(ids)))
    return built


PIPELINE: Final = page(
    "Pipeline Health",
    "energy-iot-pipeline",
    "Whether runs end well and in time, what their steps cost, and what is still to be done.",
    {
        "Now": [
            number(
                "Last run",
                "How the run ended that ended last.",
                "energy_iot_last_run_status == 1",
                name="{{status}}",
            ),
            number(
                "Since the last success",
                "Of the whole pipeline, with or without new files. The alert RunLate comes at 27 hours.",
                "energy_iot:last_success_age:seconds",
                unit=units.Seconds,
                steps=((None, GREEN), (25 * 3600, YELLOW), (27 * 3600, RED)),
            ),
            number(
                "Success rate",
                "Runs of the latest 30 days that ended well.",
                "energy_iot:recent_run_success:ratio",
                unit=units.PercentUnit,
                steps=((None, RED), (0.9, YELLOW), (0.97, GREEN)),
            ),
            number("Runs at work", "Runs that have begun and not ended.", "energy_iot_running_runs"),
            number(
                "Backlog",
                "Most loaded or removed files that a derived table has yet to follow.",
                "max(energy_iot_backlog_changes)",
                steps=((None, GREEN), (1, YELLOW)),
            ),
            number(
                "Alerts",
                "Alerts that fire now.",
                'count(ALERTS{alertstate="firing"}) or vector(0)',
                steps=((None, GREEN), (1, RED)),
            ),
        ],
        "Steps": [
            bars(
                "Duration of each step",
                "When it last had something to do.",
                "sort_desc(energy_iot_step_duration_seconds)",
                "{{step}}",
                unit=units.Seconds,
            ),
            lines(
                "Duration over time",
                "Of each step and of the whole run.",
                ("energy_iot_step_duration_seconds", "{{step}}"),
                ("energy_iot_last_run_duration_seconds", "run"),
                unit=units.Seconds,
            ),
            lines(
                "Rows written",
                "By each step when it last had something to do.",
                ('energy_iot_step_rows{direction="out"}', "{{step}}"),
            ),
            lines(
                "Steps that did not end well",
                "Failed or interrupted when they ran last.",
                ('sum by(step) (energy_iot_step_status{status=~"failed|interrupted"})', "{{step}}"),
                steps=((None, GREEN), (1, RED)),
            ),
        ],
        "History": [
            sql_lines(
                "Run duration",
                "Of each run, by how it ended.",
                """
                select started_at as time, status as metric, extract(epoch from ended_at - started_at) as value
                from quality.pipeline_runs
                where $__timeFilter(started_at) and ended_at is not null
                order by started_at
                """,
                unit=units.Seconds,
            ),
            lines(
                "Runs of the latest 30 days",
                "By how they ended.",
                ("energy_iot_recent_runs", "{{status}}"),
            ),
            sql_rows(
                "Last runs",
                "The newest first, with the reason where one failed.",
                """
                select run_id as "Run", status as "Status", started_at as "Started",
                round(extract(epoch from ended_at - started_at)::numeric, 1) as "Seconds",
                split_part(error, chr(10), 1) as "Reason"
                from quality.pipeline_runs order by started_at desc limit 50
                """,
            ),
        ],
    },
)

QUALITY: Final = page(
    "Data Quality",
    "energy-iot-quality",
    "Whether the readings are sound, complete and fresh, and whether the scores still mean what they meant.",
    {
        "Now": [
            number(
                "Age of the newest reading",
                "The alert NoNewData comes at 36 hours.",
                "energy_iot:newest_reading_age:seconds",
                unit=units.Seconds,
                steps=((None, GREEN), (30 * 3600, YELLOW), (36 * 3600, RED)),
            ),
            number(
                "Completeness",
                "Readings received over expected, of the newest day that is over.",
                "energy_iot_latest_day_completeness_ratio",
                unit=units.PercentUnit,
                steps=((None, RED), (0.8, YELLOW), (0.95, GREEN)),
            ),
            number(
                "Silent meters",
                "Without a reading on that day, of those that sent one in the week before.",
                "energy_iot_latest_day_silent_meters",
            ),
            number(
                "Rejected",
                "Share of the lines of the last load that could not be read.",
                "energy_iot_ingest_rejected_ratio",
                unit=units.PercentUnit,
                steps=((None, GREEN), (0.001, YELLOW), (0.01, RED)),
            ),
            number(
                "Late readings",
                "Of the last load: they came a day or more after later ones.",
                "energy_iot_ingest_late_readings",
            ),
            number(
                "Rules that hold",
                "Over all suites, each when it was judged last.",
                "avg(energy_iot_validation_success_ratio)",
                unit=units.PercentUnit,
                steps=((None, RED), (0.9, YELLOW), (1, GREEN)),
            ),
        ],
        "Rules": [
            bars(
                "Rules that hold, by suite",
                "Share of its rules when the suite was judged last.",
                "energy_iot_validation_success_ratio",
                "{{suite}}",
                unit=units.PercentUnit,
                maximum=1,
                steps=((None, RED), (0.9, YELLOW), (1, GREEN)),
            ),
            bars(
                "Rules that hold, by expectation",
                "The same by kind of rule, over all suites.",
                "avg by(expectation) (energy_iot_expectation_success_ratio)",
                "{{expectation}}",
                unit=units.PercentUnit,
                maximum=1,
                steps=((None, RED), (0.9, YELLOW), (1, GREEN)),
            ),
            lines(
                "Rules that hold, over time",
                "By suite.",
                ("energy_iot_validation_success_ratio", "{{suite}}"),
                unit=units.PercentUnit,
                maximum=1,
            ),
            lines(
                "Broken rules",
                "By how severe that is; a critical one stops the run.",
                ("sum by(severity) (energy_iot_validation_failed_rules)", "{{severity}}"),
            ),
            sql_rows(
                "Rules that did not hold",
                "The latest, with the share of rows that break them.",
                """
                select validated_at as "When", suite as "Suite", severity as "Severity",
                parameters ->> 'rule' as "Rule", unexpected_rows as "Rows", unexpected_share as "Share"
                from quality.validation_results where not success order by id desc limit 50
                """,
            ),
        ],
        "Readings": [
            lines(
                "Lines",
                "Of the last load: read, and not readable.",
                ("energy_iot_ingest_lines", "read"),
                ("energy_iot_ingest_rejected_lines", "rejected"),
            ),
            lines(
                "Completeness over time",
                "Readings received over expected, of the newest day that is over.",
                ("energy_iot_latest_day_completeness_ratio", "completeness"),
                unit=units.PercentUnit,
                maximum=1,
            ),
            sql_rows(
                "Last files",
                "What each brought.",
                """
                select ingested_at as "Loaded", file_name as "File", source_name as "Source",
                lines_read as "Lines", readings_loaded as "Readings", readings_rejected as "Rejected",
                last_timestamp as "Newest reading"
                from raw_data.ingested_files order by file_id desc limit 50
                """,
            ),
        ],
        "Scores": [
            lines(
                "Anomalies",
                "Share of the readings of the latest 30 days, and what is usual (expected_anomaly_share).",
                ("energy_iot_anomaly_ratio", "anomalies"),
                ("energy_iot_expected_anomaly_ratio", "{{bound}} bound"),
                unit=units.PercentUnit,
            ),
            lines(
                "Drift of scores",
                "Population stability index against the training scores: from 0.25 on a major change.",
                ("energy_iot_score_stability_index", "stability index"),
                steps=((None, GREEN), (0.1, YELLOW), (0.25, RED)),
            ),
            number(
                "Age of the model",
                "Since the model in force was trained.",
                "energy_iot:model_age:seconds",
                unit=units.Seconds,
            ),
            number("Model in force", "Its version.", "energy_iot_model_version", decimals=0),
            number("Scored readings", "Of the latest 30 days.", "energy_iot_scored_readings"),
            number("Anomalous readings", "Of the latest 30 days.", "energy_iot_anomalous_readings"),
        ],
    },
)

INFRASTRUCTURE: Final = page(
    "Infrastructure",
    "energy-iot-infrastructure",
    "The machine, the stores, Airflow and containers.",
    {
        "Targets": [
            bars("Targets", "1 where the program answers Prometheus.", "up", "{{job}}", maximum=1, span=8,
                 steps=((None, RED), (1, GREEN))),
            lines("Memory of programs", "Resident memory of those that tell it.",
                  ("process_resident_memory_bytes", "{{job}}"), unit=units.BytesIEC, span=8),
            lines("Time to answer", "How long each program takes to tell its metrics.",
                  ("scrape_duration_seconds", "{{job}}"), unit=units.Seconds, span=8),
        ],
        "Machine": [
            lines("Processor", "Share of its time that is used.",
                  ("instance:node_cpu_utilisation:ratio", "{{instance}}"), unit=units.PercentUnit, maximum=1, span=8),
            lines("Memory", "Share that is used.",
                  ("instance:node_memory_utilisation:ratio", "{{instance}}"), unit=units.PercentUnit, maximum=1,
                  span=8),
            lines("Free disk", "Share that is left; the alert DiskNearlyFull comes at 10 %.",
                  ("instance:node_filesystem_free:ratio", "{{mountpoint}}"), unit=units.PercentUnit, maximum=1, span=8,
                  steps=((None, RED), (0.1, YELLOW), (0.2, GREEN))),
        ],
        "PostgreSQL": [
            lines("Connections", "By database.", ('pg_stat_database_numbackends{datname!=""}', "{{datname}}"), span=8),
            lines("Transactions", "A second, by database.",
                  ('rate(pg_stat_database_xact_commit{datname!=""}[$__rate_interval])', "{{datname}}"),
                  unit=units.OpsPerSecond, span=8),
            lines("Size", "By database.", ("pg_database_size_bytes", "{{datname}}"), unit=units.BytesIEC, span=8),
        ],
        "ClickHouse": [
            lines("Rows", "That each published table holds.", ("energy_iot_clickhouse_rows", "{{table}}"), span=8),
            lines("Rows other than published", "ClickHouse against what was published to it: nought when all is well.",
                  ("energy_iot:sync_difference:rows", "{{table}}"), span=8, steps=((None, GREEN), (1, RED))),
            lines("Time to answer", "To connect, and to answer a small question.",
                  ("energy_iot_clickhouse_response_seconds", "ClickHouse"), unit=units.Seconds, span=8),
        ],
        "Airflow": [
            lines("Scheduler", "Heartbeats a second; none means that nothing is started any more.",
                  ("rate(airflow_scheduler_heartbeat[$__rate_interval])", "heartbeats"), span=8),
            lines("Tasks", "That ended in the latest hour.",
                  ("increase(airflow_ti_successes[1h])", "succeeded"), ("increase(airflow_ti_failures[1h])", "failed"),
                  span=8),
            lines("Slots", "Of the executor.",
                  ("airflow_executor_open_slots", "open"), ("airflow_executor_running_tasks", "running"),
                  ("airflow_executor_queued_tasks", "queued"), span=8),
        ],
        "Containers": [
            lines("Processor of containers", "Cores in use, where Docker and cAdvisor run.",
                  ('sum by(name) (rate(container_cpu_usage_seconds_total{name!=""}[$__rate_interval]))', "{{name}}")),
            lines("Memory of containers", "Working set, where Docker and cAdvisor run.",
                  ('container_memory_working_set_bytes{name!=""}', "{{name}}"), unit=units.BytesIEC),
        ],
    },
)  # fmt: skip

DASHBOARDS: Final = {"pipeline": PIPELINE, "quality": QUALITY, "infrastructure": INFRASTRUCTURE}


def to_json(built: dashboard.Dashboard) -> str:
    """The file that Grafana reads."""
    fields = json.loads(json.dumps(built.build(), cls=JSONEncoder))
    # the SDK gives these by itself; the Grafana that is run knows them no more
    fields.pop("style", None)
    for panel in fields["panels"]:
        panel.get("options", {}).pop("footer", None)
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write all dashboards."""
    for name, built in DASHBOARDS.items():
        (FOLDER / f"{name}.json").write_text(to_json(built), encoding="utf-8")


if __name__ == "__main__":
    main()
