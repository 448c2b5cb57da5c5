"""What the report shows, read from PostgreSQL: each query aggregates there and returns a bounded result."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from typing import Any, Final, TypeVar, cast

import psycopg
from psycopg.rows import class_row, dict_row

from energy_iot.errors import UsageError
from energy_iot.ml.reasons import explain_reading
from energy_iot.pipeline import STEPS
from energy_iot.reporting.findings import Findings, read_findings
from energy_iot.storage.postgres import Postgres

TOP_ANOMALIES: Final = 10
TOP_METERS: Final = 20
LONGEST_GAPS: Final = 5
COMMON_REJECTS: Final = 5
FAILURES_SHOWN: Final = 50
PLOTTED_ANOMALIES: Final = 1_000
PLOTTED_OTHERS: Final = 1_500
MIN_METER_READINGS: Final = 24  # one odd reading of three is no share to rank a meter by

DAYS_MART: Final = "marts.mart_consumption_metrics"
DAYS_INTERMEDIATE: Final = "intermediate.int_readings_daily"
HOURS: Final = "intermediate.int_readings_hourly"
GAPS: Final = "intermediate.int_reading_gaps"
SCORES: Final = "marts.mart_anomaly_scores"

# Knuth's multiplicative hash: a sample that is the same each time and follows no period of the day
SPREAD_RANGE: Final = 4_294_967_296
SPREAD: Final = f"mod(mod(reading_id, 2147483648) * 2654435761, {SPREAD_RANGE})"

KINDS: Final = ("high_consumption", "low_consumption", "unusual_pattern")
COUNT_KINDS: Final = (
    "count(*) filter (where is_anomaly and anomaly_type = 'high_consumption') as high_consumption, "
    "count(*) filter (where is_anomaly and anomaly_type = 'low_consumption') as low_consumption, "
    "count(*) filter (where is_anomaly and anomaly_type is distinct from 'high_consumption' "
    "and anomaly_type is distinct from 'low_consumption') as unusual_pattern"
)

Row = TypeVar("Row")


@dataclass(frozen=True)
class Run:
    """A row of quality.pipeline_runs; times UTC."""

    run_id: str
    status: str
    started_at: datetime
    seconds: float | None
    package_version: str
    error: str | None


@dataclass(frozen=True)
class StepRun:
    """A row of quality.step_runs; the last attempt of the step in the run."""

    step: str
    status: str
    started_at: datetime
    seconds: float | None
    rows_in: int | None
    rows_out: int | None
    warnings: tuple[str, ...]
    details: Mapping[str, Any]
    error: str | None


@dataclass(frozen=True)
class FailedExpectation:
    """An expectation that was not met."""

    suite: str
    expectation: str
    column_name: str | None
    severity: str
    checked_rows: int | None
    unexpected_rows: int | None
    unexpected_share: float | None
    examples: Sequence[Any]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Suite:
    """The last judgement of one suite of expectations."""

    suite: str
    run_id: str
    validated_at: datetime
    expectations: int
    failed_critical: int
    failed_warning: int
    failed_info: int

    @property
    def met(self) -> int:
        """Expectations that hold."""
        return self.expectations - self.failed_critical - self.failed_warning - self.failed_info


@dataclass(frozen=True)
class Sources:
    """What the loaded files held."""

    files: int
    readings_loaded: int
    readings_without_consumption: int
    readings_rejected: int
    intervals_minutes: tuple[int, ...]


@dataclass(frozen=True)
class Reject:
    """A reason for which rows were refused, and how many."""

    reason: str
    rejected_rows: int


@dataclass(frozen=True)
class Gap:
    """Consecutive readings that a meter did not send; from the first missing instant to the next reading, UTC."""

    meter_id: str
    gap_start: datetime
    gap_end: datetime
    missing_readings: int


@dataclass(frozen=True)
class Gaps:
    """All gaps between the first and last reading of each meter."""

    gaps: int
    missing_readings: int
    meters: int
    longest: tuple[Gap, ...]


@dataclass(frozen=True)
class Day:
    """The whole fleet on one UTC day; anomalies by type, None where nothing has been scored."""

    day: date
    consumption_kwh: float
    meters: int
    reading_count: int
    expected_reading_count: int
    high_consumption: int | None = None
    low_consumption: int | None = None
    unusual_pattern: int | None = None

    @property
    def anomalies(self) -> int | None:
        """Anomalies of any type."""
        if self.high_consumption is None or self.low_consumption is None or self.unusual_pattern is None:
            return None
        return self.high_consumption + self.low_consumption + self.unusual_pattern

    @property
    def completeness(self) -> float:
        """Received over expected readings, of the meters that have sent before and send again."""
        return self.reading_count / self.expected_reading_count if self.expected_reading_count else 0.0


@dataclass(frozen=True)
class HourOfWeek:
    """Mean power of one meter in an hour of the week, kW; day_of_week 0 is Sunday, hours UTC."""

    day_of_week: int
    hour_of_day: int
    avg_power_kw: float
    reading_count: int


@dataclass(frozen=True)
class ScoredReading:
    """A row of marts.mart_anomaly_scores; higher scores are stranger."""

    reading_id: int
    meter_id: str
    reading_timestamp: datetime
    consumption_kwh: float
    anomaly_score: float
    anomaly_type: str | None
    consumption_vs_avg_ratio: float | None
    hour_of_week_z_score: float | None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it stands out, in words."""
        return tuple(
            explain_reading(
                self.consumption_kwh, self.consumption_vs_avg_ratio, self.hour_of_week_z_score, self.anomaly_type
            )
        )


@dataclass(frozen=True)
class MeterAnomalies:
    """How often one meter was unlike itself, by type of anomaly."""

    meter_id: str
    readings: int
    high_consumption: int
    low_consumption: int
    unusual_pattern: int
    highest_score: float

    @property
    def anomalies(self) -> int:
        """Anomalies of any type."""
        return self.high_consumption + self.low_consumption + self.unusual_pattern

    @property
    def share(self) -> float:
        """Anomalies over readings."""
        return self.anomalies / self.readings


@dataclass(frozen=True)
class Scores:
    """Everything about the scored readings; `anomalies_by_type` counts them all, the tuples are bounded.

    `top` starts with the highest score, `others` is a repeatable sample of readings that are no anomalies, and
    `meters` holds the highest shares first, out of the `meters_ranked` meters with `min_meter_readings` or more.
    """

    readings: int
    anomalies: int
    meters_scored: int
    meters_ranked: int
    min_meter_readings: int
    meters_with_anomalies: int
    model_version: int | None
    scored_at: datetime
    anomalies_by_type: Mapping[str, int]
    top: tuple[ScoredReading, ...]
    others: tuple[ScoredReading, ...]
    meters: tuple[MeterAnomalies, ...]


@dataclass(frozen=True)
class Model:
    """A row of ml.model_versions; `card` is the JSON that lies beside the model's file."""

    model_version: int
    file_name: str
    sha256: str
    trained_at: datetime
    training_rows: int
    score_threshold: float
    card: Mapping[str, Any]


@dataclass(frozen=True)
class ReportData:
    """All the report shows. An empty tuple or None is a part that does not exist yet.

    `threshold` is that of the last scoring, which may differ from the one the model was saved with.
    """

    generated_at: datetime
    run: Run | None = None
    steps: tuple[StepRun, ...] = ()
    earlier_steps: Mapping[str, StepRun] = field(default_factory=dict)
    suites: tuple[Suite, ...] = ()
    failures: tuple[FailedExpectation, ...] = ()
    sources: Sources | None = None
    rejects: tuple[Reject, ...] = ()
    meters: int = 0
    days: tuple[Day, ...] = ()
    gaps: Gaps | None = None
    week: tuple[HourOfWeek, ...] = ()
    scores: Scores | None = None
    agreement: Mapping[str, Any] | None = None
    threshold: float | None = None
    model: Model | None = None
    findings: Findings = field(default_factory=Findings)

    @property
    def readings(self) -> int:
        """Clean readings: one for each meter and instant."""
        return sum(day.reading_count for day in self.days)

    @property
    def meter_days(self) -> int:
        """Days with readings, of each meter."""
        return sum(day.meters for day in self.days)

    @property
    def consumption_kwh(self) -> float:
        """Energy of all readings, kWh."""
        return sum(day.consumption_kwh for day in self.days)

    @property
    def missing_readings(self) -> int | None:
        """Readings missing between each meter's first and last; None where gaps were not computed."""
        return self.gaps.missing_readings if self.gaps else None

    @property
    def completeness(self) -> float | None:
        """Received over received and missing readings; None without readings or gaps."""
        if self.missing_readings is None or not self.readings:
            return None
        return self.readings / (self.readings + self.missing_readings)


def read_report_data(postgres: Postgres, *, now: datetime | None = None) -> ReportData:
    """Read all parts as of one instant; a part whose tables do not exist or are empty is left out.

    Args:
        postgres: The migrated database.
        now: UTC instant to date the report with; the clock by default.

    Raises:
        UsageError: Nothing was ever loaded or run here.
        StorageError: The database cannot be reached.
    """
    with postgres.connect() as connection:
        connection.execute("set transaction isolation level repeatable read, read only")
        connection.execute("set local jit = off")  # costs more than it saves on these queries
        reader = _Reader(connection)
        data = reader.read(now or datetime.now(UTC).replace(tzinfo=None))
    if data.run is None and data.sources is None and not data.days:
        raise nothing_to_report()
    return data


def nothing_to_report() -> UsageError:
    """The error for a home in which nothing has happened."""
    return UsageError("nothing to report yet: no run, no file loaded", fix="energy-iot run FILE")


class _Reader:
    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def read(self, now: datetime) -> ReportData:
        run = self._run()
        suites = self._suites()
        scores = self._scores() if self._filled(SCORES) else None
        days, meters = self._days(scored=scores is not None)
        scoring = self._last_scoring()
        model = self._model(scores.model_version if scores else None)
        return ReportData(
            generated_at=now,
            run=run,
            steps=self._steps(run.run_id) if run else (),
            earlier_steps=self._earlier_steps(),
            suites=suites,
            failures=self._failures(suites),
            sources=self._sources(),
            rejects=self._rejects(),
            meters=meters,
            days=days,
            gaps=self._gaps() if self._exists(GAPS) and days else None,
            week=self._week() if self._filled(HOURS) else (),
            scores=scores,
            agreement=scoring.get("agreement"),
            threshold=scoring.get("threshold", model.score_threshold if model else None),
            model=model,
            findings=read_findings(self._connection),
        )

    # --- the run ----------------------------------------------------------------------------------------------
    def _run(self) -> Run | None:
        return self._one(
            Run,
            "select run_id, status, started_at, extract(epoch from ended_at - started_at)::float8 as seconds, "
            "package_version, error from quality.pipeline_runs order by started_at desc, run_id desc limit 1",
        )

    def _steps(self, run_id: str) -> tuple[StepRun, ...]:
        found = self._step_runs("where run_id = %s", (run_id,))
        return tuple(found[step.name] for step in STEPS if step.name in found)

    def _earlier_steps(self) -> Mapping[str, StepRun]:
        """For each step the last time it did its work: a later run may have found nothing to do."""
        return self._step_runs("where status = 'succeeded'")

    def _step_runs(self, condition: str, parameters: Sequence[Any] = ()) -> dict[str, StepRun]:
        rows = self._dicts(
            "select distinct on (step) step, status, started_at, "
            "extract(epoch from ended_at - started_at)::float8 as seconds, rows_in, rows_out, warnings, details, "
            f"error from quality.step_runs {condition} order by step, id desc",
            parameters,
        )
        return {row["step"]: StepRun(**row | {"warnings": tuple(row["warnings"])}) for row in rows}

    # --- quality ----------------------------------------------------------------------------------------------
    def _suites(self) -> tuple[Suite, ...]:
        return self._all(
            Suite,
            "with latest as (select distinct on (suite) suite, run_id from quality.validation_results "
            "order by suite, id desc) "
            "select suite, run_id, max(validated_at) as validated_at, count(*) as expectations, "
            "count(*) filter (where not success and severity = 'critical') as failed_critical, "
            "count(*) filter (where not success and severity = 'warning') as failed_warning, "
            "count(*) filter (where not success and severity not in ('critical', 'warning')) as failed_info "
            "from quality.validation_results join latest using (suite, run_id) group by suite, run_id order by min(id)",
        )

    def _failures(self, suites: Sequence[Suite]) -> tuple[FailedExpectation, ...]:
        return self._all(
            FailedExpectation,
            "select suite, expectation, column_name, severity, checked_rows, unexpected_rows, unexpected_share, "
            "examples, parameters from quality.validation_results "
            "where not success and (suite, run_id) in (select * from unnest(%s::text[], %s::text[])) "
            "order by severity <> 'critical', severity <> 'warning', id limit %s",
            ([suite.suite for suite in suites], [suite.run_id for suite in suites], FAILURES_SHOWN),
        )

    # --- what was loaded --------------------------------------------------------------------------------------
    def _sources(self) -> Sources | None:
        row = self._dicts(
            "select count(*) as files, coalesce(sum(readings_loaded), 0)::bigint as readings_loaded, "
            "coalesce(sum(readings_without_consumption), 0)::bigint as readings_without_consumption, "
            "coalesce(sum(readings_rejected), 0)::bigint as readings_rejected, "
            "array_agg(distinct interval_minutes) filter (where interval_minutes is not null) as intervals_minutes "
            "from raw_data.ingested_files where content = 'readings'"
        )[0]
        if not row["files"]:
            return None
        return Sources(**row | {"intervals_minutes": tuple(sorted(row["intervals_minutes"] or ()))})

    def _rejects(self) -> tuple[Reject, ...]:
        return self._all(
            Reject,
            "select reason, count(*) as rejected_rows from raw_data.rejected_readings group by reason "
            "order by count(*) desc, reason limit %s",
            (COMMON_REJECTS,),
        )

    # --- consumption ------------------------------------------------------------------------------------------
    def _days(self, *, scored: bool) -> tuple[tuple[Day, ...], int]:
        """Fleet totals and the number of meters: from the marts, before they exist from the intermediate table.

        A meter is expected to read each day from its first to its last, also on days without any of its readings.
        """
        if self._filled(DAYS_MART):
            meter_days = f"select meter_id, period_start as day, consumption_kwh, reading_count, \
                expected_reading_count from {DAYS_MART} where period_type = 'day'"
        elif self._filled(DAYS_INTERMEDIATE):
            meter_days = f"select meter_id, reading_date as day, daily_consumption_kwh as consumption_kwh, \
                reading_count, expected_reading_count from {DAYS_INTERMEDIATE}"
        else:
            return (), 0
        kinds = ", ".join(f"coalesce({kind}, 0) as {kind}" for kind in KINDS)
        anomalies = f"select reading_timestamp::date as day, {COUNT_KINDS} from {SCORES} where is_anomaly group by 1"
        rows = self._dicts(
            f"with meter_days as materialized ({meter_days}), "
            "meters as materialized (select meter_id, min(day) as first_day, max(day) as last_day, "
            "max(expected_reading_count) as expected from meter_days group by meter_id), "
            "changes as (select day, sum(expected) as expected from ("
            "select first_day as day, expected from meters "
            "union all select last_day + 1, -expected from meters) as changes group by day), "
            "totals as (select day, sum(consumption_kwh)::float8 as consumption_kwh, count(*) as meters, "
            "sum(reading_count)::bigint as reading_count from meter_days group by day), "
            "timeline as (select day, consumption_kwh, meters, reading_count, "
            "(sum(coalesce(expected, 0)) over (order by day))::bigint as expected_reading_count "
            "from totals full join changes using (day)) "
            "select day, consumption_kwh, meters, reading_count, expected_reading_count, "
            "(select count(*) from meters) as all_meters"
            + (
                f", {kinds} from timeline left join ({anomalies}) as anomalies using (day)"
                if scored
                else " from timeline"
            )
            + " where reading_count is not null order by day"
        )
        meters = int(rows[0]["all_meters"]) if rows else 0
        return tuple(
            Day(**{name: value for name, value in row.items() if name != "all_meters"}) for row in rows
        ), meters

    def _gaps(self) -> Gaps:
        longest = self._all(
            Gap,
            f"select meter_id, gap_start, gap_end, missing_readings from {GAPS} "
            "order by missing_readings desc, meter_id, gap_start limit %s",
            (LONGEST_GAPS,),
        )
        row = self._dicts(
            "select count(*) as gaps, coalesce(sum(missing_readings), 0)::bigint as missing_readings, "
            f"count(distinct meter_id) as meters from {GAPS}"
        )[0]
        return Gaps(**row, longest=longest)

    def _week(self) -> tuple[HourOfWeek, ...]:
        return self._all(
            HourOfWeek,
            "with hours as (select mod(cast(date_part('epoch', hour_start) as bigint) / 3600, 168) as hour_of_week, "
            f"avg_power_kw, reading_count from {HOURS}), "
            "cells as (select hour_of_week, (sum(avg_power_kw * reading_count) / sum(reading_count))::float8 "
            "as avg_power_kw, sum(reading_count)::bigint as reading_count from hours group by hour_of_week) "
            # 1970-01-01 was a Thursday
            "select mod(hour_of_week / 24 + 4, 7)::integer as day_of_week, mod(hour_of_week, 24)::integer "
            "as hour_of_day, avg_power_kw, reading_count from cells order by 1, 2",
        )

    # --- where to go ------------------------------------------------------------------------------------------
    # --- anomalies --------------------------------------------------------------------------------------------
    def _scores(self) -> Scores:
        totals = self._dicts(
            "with meters as materialized (select meter_id, count(*) as readings, "
            f"{COUNT_KINDS}, count(*) filter (where is_anomaly) as anomalies, max(anomaly_score) as highest_score, "
            f"max(model_version) as model_version, max(scored_at) as scored_at from {SCORES} group by meter_id), "
            "floor as (select least(%(min_readings)s, max(readings)) as min_readings from meters), "
            "ranked as (select * from meters "
            "where readings >= (select min_readings from floor)), "
            "top as (select * from ranked where anomalies > 0 "
            "order by anomalies::float8 / readings desc, anomalies desc, meter_id limit %(top)s) "
            "select sum(readings)::bigint as readings, sum(anomalies)::bigint as anomalies, "
            f"{', '.join(f'sum({kind})::bigint as {kind}' for kind in KINDS)}, "
            "count(*) as meters_scored, (select count(*) from ranked) as meters_ranked, "
            "(select min_readings from floor) as min_meter_readings, "
            "count(*) filter (where anomalies > 0) as meters_with_anomalies, max(model_version) as model_version, "
            "max(scored_at) as scored_at, coalesce((select json_agg(top order by anomalies::float8 / readings desc, "
            "anomalies desc, meter_id) from top), '[]') as meters from meters",
            {"min_readings": MIN_METER_READINGS, "top": TOP_METERS},
        )[0]
        names = [one.name for one in fields(MeterAnomalies)]
        meters = tuple(MeterAnomalies(**{name: meter[name] for name in names}) for meter in totals.pop("meters"))
        by_type = {kind: totals.pop(kind) for kind in KINDS}
        columns = (
            "reading_id, meter_id, reading_timestamp, consumption_kwh::float8, anomaly_score, "
            "case when is_anomaly then coalesce(anomaly_type, 'unusual_pattern') end as anomaly_type, "
            "consumption_vs_avg_ratio::float8, hour_of_week_z_score::float8"
        )
        top = self._all(
            ScoredReading,
            f"select {columns} from {SCORES} where is_anomaly order by anomaly_score desc, reading_id limit %s",
            (PLOTTED_ANOMALIES,),
        )
        others = self._all(
            ScoredReading,
            f"select {columns} from {SCORES} where not is_anomaly and {SPREAD} < %s "
            f"order by {SPREAD}, reading_id limit %s",
            # three times as many as wanted pass: fewer to sort, and enough left after the anomalies are gone
            (math.ceil(SPREAD_RANGE * min(1, 3 * PLOTTED_OTHERS / totals["readings"])), PLOTTED_OTHERS),
        )
        return Scores(
            **totals,
            meters=meters,
            top=top,
            others=others,
            anomalies_by_type={kind: number for kind, number in by_type.items() if number},
        )

    def _last_scoring(self) -> Mapping[str, Any]:
        rows = self._dicts(
            "select details from quality.step_runs where step = 'ml_score' and status = 'succeeded' "
            "order by id desc limit 1"
        )
        return cast("Mapping[str, Any]", rows[0]["details"]) if rows else {}

    def _model(self, version: int | None) -> Model | None:
        """The model that made the scores; before there are scores, the newest."""
        return self._one(
            Model,
            "select model_version, file_name, sha256, trained_at, training_rows, score_threshold, card "
            "from ml.model_versions where %(version)s::integer is null or model_version = %(version)s "
            "order by model_version desc limit 1",
            {"version": version},
        )

    # --- helpers ----------------------------------------------------------------------------------------------
    def _exists(self, table: str) -> bool:
        return bool(self._dicts("select to_regclass(%s) is not null as found", (table,))[0]["found"])

    def _filled(self, table: str) -> bool:
        return self._exists(table) and bool(self._dicts(f"select exists (select from {table}) as filled")[0]["filled"])

    def _all(self, kind: type[Row], query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> tuple[Row, ...]:
        with self._connection.cursor(row_factory=class_row(kind)) as cursor:
            return tuple(cursor.execute(query.encode(), parameters or None))

    def _one(self, kind: type[Row], query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Row | None:
        return next(iter(self._all(kind, query, parameters)), None)

    def _dicts(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode(), parameters or None).fetchall()
