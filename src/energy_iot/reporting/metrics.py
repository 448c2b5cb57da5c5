"""The stored facts of runs as Prometheus metrics: an endpoint for Prometheus, or a file for node_exporter.

They are read from the tables when asked for, so nothing is lost when a run dies. No label holds a meter, a file or a
run: there are as many series with ten meters as with ten million.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from energy_iot import __version__
from energy_iot.errors import StorageError, UsageError
from energy_iot.reporting.metric_facts import RECENT_DAYS, Facts, read_facts
from energy_iot.serving.local_server import HOST, asked_to_stop, free_port
from energy_iot.settings import Settings
from energy_iot.storage.postgres import open_postgres

PREFIX: Final = "energy_iot_"
RUN_STATUSES: Final = ("succeeded", "failed", "interrupted")
STEP_STATUSES: Final = (*RUN_STATUSES, "skipped", "running")
SEVERITIES: Final = ("critical", "warning", "info")

log = logging.getLogger(__name__)


def gauge(name: str, meaning: str, value: float | None) -> GaugeMetricFamily:
    """A metric of one value, or of none while it is not known."""
    family = GaugeMetricFamily(PREFIX + name, meaning)
    if value is not None:
        family.add_metric([], value)
    return family


def gauges(name: str, meaning: str, labels: tuple[str, ...], values: Iterable[tuple[Any, ...]]) -> GaugeMetricFamily:
    """A metric with labels; of each series the values of its labels, then its own, None where it is not known."""
    family = GaugeMetricFamily(PREFIX + name, meaning, labels=labels)
    for *texts, value in values:
        if value is not None:
            family.add_metric(list(map(str, texts)), value)
    return family


def metrics_of(facts: Facts, settings: Settings) -> list[Metric]:
    """All metrics of one snapshot."""
    return [
        *_of_runs(facts),
        *_of_steps(facts),
        *_of_readings(facts),
        *_of_rules(facts),
        *_of_scores(facts, settings),
        *_of_stores(facts),
    ]


def _of_runs(facts: Facts) -> list[Metric]:
    runs = facts.runs
    seconds = None if runs.last_end is None or runs.last_start is None else runs.last_end - runs.last_start
    return [
        gauge("running_runs", "Runs at work now.", runs.running),
        gauges(
            "recent_runs",
            f"Runs that ended in the latest {RECENT_DAYS} days, by how.",
            ("status",),
            [(status, getattr(runs, status)) for status in RUN_STATUSES],
        ),
        gauges(
            "last_run_status",
            "1 for how the run ended that ended last, 0 for the others.",
            ("status",),
            [(status, float(runs.last_status == status)) for status in RUN_STATUSES if runs.last_status],
        ),
        gauge("last_run_start_timestamp_seconds", "When the run began that ended last.", runs.last_start),
        gauge("last_run_duration_seconds", "How long the run took that ended last.", seconds),
        gauge(
            "last_success_timestamp_seconds",
            "When the whole pipeline ended well last, also with nothing to do.",
            runs.last_success,
        ),
    ]


def _of_steps(facts: Facts) -> list[Metric]:
    steps = facts.steps
    return [
        gauges(
            "step_status",
            "1 for how the step went last, 0 for the others.",
            ("step", "status"),
            [(one.step, status, float(one.status == status)) for one in steps for status in STEP_STATUSES],
        ),
        gauges(
            "step_duration_seconds",
            "How long the step took when it last had something to do.",
            ("step",),
            [(one.step, one.seconds) for one in steps],
        ),
        gauges(
            "step_rows",
            "Rows that the step read (in) and wrote (out) when it last had something to do.",
            ("step", "direction"),
            [(one.step, *figure) for one in steps for figure in (("in", one.rows_in), ("out", one.rows_out))],
        ),
        gauges(
            "step_warnings",
            "Warnings of the step when it last had something to do.",
            ("step",),
            [(one.step, one.warnings) for one in steps],
        ),
        gauges(
            "step_attempts",
            "How often the step was tried when it ran last.",
            ("step",),
            [(one.step, one.attempts) for one in steps],
        ),
    ]


def _of_readings(facts: Facts) -> list[Metric]:
    loaded, ingested = facts.loaded, facts.details.get("ingest_data", {})
    day = facts.details.get("dbt_run_intermediate", {}).get("latest_day") or {}
    return [
        gauge("loaded_files", "Files loaded.", loaded.files),
        gauge("loaded_readings", "Readings loaded.", loaded.readings),
        gauge("rejected_lines", "Lines of all loaded files that could not be read.", loaded.rejected),
        gauge("ingest_lines", "Lines that the last load read.", ingested.get("rows_in")),
        gauge("ingest_rejected_lines", "Lines that could not be read, of the last load.", ingested.get("rejected")),
        gauge(
            "ingest_rejected_ratio",
            "Share of lines that could not be read, of the last load.",
            _ratio(ingested.get("rejected"), ingested.get("rows_in")),
        ),
        gauge(
            "ingest_late_readings",
            "Readings of the last load that came a day or more after later ones.",
            ingested.get("late"),
        ),
        gauge("newest_reading_timestamp_seconds", "Instant of the newest reading.", loaded.newest_reading),
        gauge(
            "latest_day_completeness_ratio",
            "Readings received over readings expected, of the newest day that is over.",
            _ratio(day.get("readings"), day.get("expected_readings")),
        ),
        gauge(
            "latest_day_meters",
            "Meters with readings on the newest day that is over, or in the week before.",
            day.get("meters"),
        ),
        gauge(
            "latest_day_silent_meters",
            "Meters of these without a reading on the newest day that is over.",
            day.get("silent_meters"),
        ),
    ]


def _of_rules(facts: Facts) -> list[Metric]:
    suites = sorted({one.suite for one in facts.suites})
    expectations = sorted({(one.suite, one.expectation) for one in facts.suites})

    def ratio(suite: str, expectation: str | None = None) -> float | None:
        chosen = [one for one in facts.suites if one.suite == suite and expectation in (None, one.expectation)]
        return _ratio(sum(one.passed for one in chosen), sum(one.rules for one in chosen))

    return [
        gauges(
            "validation_success_ratio",
            "Share of the suite's rules that held when it was judged last.",
            ("suite",),
            [(suite, ratio(suite)) for suite in suites],
        ),
        gauges(
            "expectation_success_ratio",
            "Share of the suite's rules of one kind that held when it was judged last.",
            ("suite", "expectation"),
            [(suite, expectation, ratio(suite, expectation)) for suite, expectation in expectations],
        ),
        gauges(
            "validation_failed_rules",
            "Rules that did not hold when the suite was judged last, by how severe that is.",
            ("suite", "severity"),
            [
                (
                    suite,
                    severity,
                    sum(
                        one.rules - one.passed
                        for one in facts.suites
                        if one.suite == suite and one.severity == severity
                    ),
                )
                for suite in suites
                for severity in SEVERITIES
            ],
        ),
        gauges(
            "validation_timestamp_seconds",
            "When the suite was judged last.",
            ("suite",),
            [(suite, max(one.judged_at for one in facts.suites if one.suite == suite)) for suite in suites],
        ),
    ]


def _of_scores(facts: Facts, settings: Settings) -> list[Metric]:
    scored = facts.details.get("ml_score", {})
    latest = scored.get("latest") or {}
    model = facts.model
    return [
        gauge("scored_readings", "Readings of the latest 30 days that have a score.", latest.get("readings")),
        gauge("anomalous_readings", "Readings of the latest 30 days that are anomalies.", latest.get("anomalies")),
        gauge(
            "anomaly_ratio",
            "Share of anomalies among the readings of the latest 30 days.",
            _ratio(latest.get("anomalies"), latest.get("readings")),
        ),
        gauges(
            "expected_anomaly_ratio",
            "Bounds of the usual anomaly_ratio: the setting expected_anomaly_share.",
            ("bound",),
            zip(("lower", "upper"), settings.expected_anomaly_share, strict=True),
        ),
        gauge(
            "score_stability_index",
            "Population stability index of the scores of the last scoring against the training scores.",
            (scored.get("scored_now") or {}).get("drift"),
        ),
        gauge("model_version", "Version of the model in force.", model.version if model else None),
        gauge(
            "model_trained_timestamp_seconds",
            "When the model in force was trained.",
            model.trained_at if model else None,
        ),
    ]


def _of_stores(facts: Facts) -> list[Metric]:
    asked = facts.clickhouse
    tables = asked.tables if asked else {}
    return [
        gauges(
            "backlog_changes",
            "Loaded or removed files that the derived table has yet to follow.",
            ("table",),
            [(one.name, one.pending_changes) for one in facts.derived],
        ),
        gauges("published_rows", "Rows that ClickHouse should hold.", ("table",), facts.published_rows.items()),
        gauges(
            "clickhouse_rows",
            "Rows that ClickHouse holds.",
            ("table",),
            [(name, table.rows) for name, table in tables.items()],
        ),
        gauges(
            "clickhouse_table_bytes",
            "Compressed size of a published table.",
            ("table",),
            [(name, table.size_bytes) for name, table in tables.items()],
        ),
        gauges(
            "clickhouse_table_parts",
            "Active parts of a published table.",
            ("table",),
            [(name, table.parts) for name, table in tables.items()],
        ),
        gauge(
            "clickhouse_response_seconds",
            "How long ClickHouse took to connect and answer.",
            asked.seconds if asked else None,
        ),
        gauge(
            "clickhouse_up",
            "Whether ClickHouse answers; absent while nothing serves the embedded one.",
            float(asked.answers) if asked else None,
        ),
    ]


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


# --- giving them out ------------------------------------------------------------------------------------------------


class PipelineCollector(Collector):
    """Reads the facts when it is asked; without PostgreSQL it says so, and nothing else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._told: str | None = None

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        yield InfoMetricFamily(f"{PREFIX}build", "The program.", {"version": __version__})
        try:
            with open_postgres(self._settings) as postgres:
                found = metrics_of(read_facts(self._settings, postgres), self._settings)
        except (StorageError, psycopg.Error) as error:
            self._tell(str(error))
            found = []
        else:
            self._tell(None)
        yield gauge("up", "Whether PostgreSQL answers.", float(bool(found)))
        yield from found

    def _tell(self, reason: str | None) -> None:
        """Log that PostgreSQL went away or is back, once."""
        if reason != self._told:
            log.warning("no facts for metrics: %s", reason) if reason else log.info("facts for metrics are back")
        self._told = reason


def make_registry(settings: Settings) -> CollectorRegistry:
    """The pipeline's metrics."""
    registry = CollectorRegistry()
    registry.register(PipelineCollector(settings))
    return registry


def write_textfile(settings: Settings, file: Path) -> None:
    """Write the metrics where node_exporter's textfile collector reads them: whole or not at all.

    Raises:
        UsageError: The folder is not there or not writable.
    """
    text = generate_latest(make_registry(settings))
    try:
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(text)
            Path(name).chmod(0o644)  # node_exporter is another user
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written: {error.strerror}", fix="make its folder, or name another"
        ) from error


def serve(settings: Settings, *, port: int | None, host: str = HOST, started: Callable[[str], None]) -> None:
    """Answer http://HOST:PORT/metrics until SIGTERM or SIGINT.

    Args:
        settings: Name the database.
        port: 0 takes a free one, None the one of the settings.
        host: Address to listen on; whoever reaches it reads the metrics.
        started: Called with the address once it answers.

    Raises:
        StorageError: The port is taken.
    """
    registry = make_registry(settings)
    registry.register(ProcessCollector(registry=None))
    chosen = free_port(settings.metrics_port if port is None else port, host)
    with asked_to_stop() as asked, ExitStack() as held:
        with suppress(StorageError):  # then the endpoint says so
            held.enter_context(open_postgres(settings))  # the embedded server: not started anew for each answer
        server, thread = start_http_server(chosen, host, registry)
        try:
            started(f"http://{host}:{chosen}/metrics")
            asked.wait()
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
