"""The two quality steps: Great Expectations judges the feed, then the marts; critical failures stop the run."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast

import psycopg
from great_expectations.core import RunIdentifier
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from energy_iot.errors import DataQualityError, UsageError
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.quality.context import (
    CHECKPOINT,
    docs_dir,
    forget_old_runs,
    open_context,
    suite_parameters,
    write_docs,
)
from energy_iot.quality.findings import (
    Finding,
    Row,
    count_query,
    example_query,
    failure_text,
    findings_of_suite,
    fix_text,
    warning_sentence,
)
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres, open_postgres

STAGING_SUITES: Final = ("raw_readings_suite", "staging_readings_suite", "daily_readings_suite")
MARTS_SUITES: Final = ("marts_metrics_suite", "marts_scores_suite")
EXAMPLES: Final = 5


@dataclass(frozen=True)
class SuiteRun:
    """A suite, run."""

    name: str
    findings: tuple[Finding, ...]
    rows: int
    seconds: float


def validate_staging(context: RunContext) -> StepReport:
    """Judge raw_data.meter_readings, staging.stg_meter_readings and the completeness of days.

    Returns:
        rows_in and rows_out: rows of the judged tables; warnings: non-critical failures; details: figures by suite.

    Raises:
        DataQualityError: A critical rule does not hold; results are stored and Data Docs built all the same.
        UsageError: A table is not there yet.
    """
    return _validate(context, STAGING_SUITES, fix="run `energy-iot transform staging`, then `... intermediate`")


def validate_marts(context: RunContext) -> StepReport:
    """Judge marts.mart_consumption_metrics and marts.mart_anomaly_scores; as `validate_staging` otherwise."""
    return _validate(context, MARTS_SUITES, fix="run `energy-iot score`, then `energy-iot transform marts`")


def build_data_docs(settings: Settings) -> Path:
    """Build Data Docs anew from the suites and the results kept under home; returns their first page."""
    with open_context(settings) as context:
        write_docs(settings, context)
    return docs_dir(settings) / "index.html"


def describe_context(settings: Settings) -> str:
    """Load the file context and list the suites of its checkpoint with their rules; needs no database."""
    lines = []
    with open_context(settings) as context:
        for definition in context.checkpoints.get(CHECKPOINT).validation_definitions:
            suite = definition.suite
            lines.append(f"{suite.name}: {suite.meta['table']}, {len(suite.expectations)} rules")
            lines += [f"  {rule.severity.value:<8}  {(rule.meta or {})['rule']}" for rule in suite.expectations]
    return "\n".join(lines)


def _validate(context: RunContext, suites: Sequence[str], *, fix: str) -> StepReport:
    with open_postgres(context.settings) as postgres:
        runs = _run_suites(context, postgres, suites, fix=fix)
        findings = [finding for run in runs for finding in run.findings]
        _store(postgres, context.run_id, suites, findings)
    if any(finding.is_critical for finding in findings):
        page = docs_dir(context.settings) / "index.html"
        raise DataQualityError(failure_text(findings), fix=f"{fix_text(findings)}\n  all results: {page}")
    rows = sum(run.rows for run in runs)
    return StepReport(
        rows_in=rows,
        rows_out=rows,
        warnings=tuple(
            warning_sentence(finding) for finding in findings if not finding.success and finding.severity == "warning"
        ),
        details={
            "suites": {run.name: _figures(run) for run in runs},
            "data_docs": str(docs_dir(context.settings) / "index.html"),
        },
    )


def _figures(run: SuiteRun) -> dict[str, Any]:
    failed = [finding.severity for finding in run.findings if not finding.success]
    return {
        "expectations": len(run.findings),
        "passed": len(run.findings) - len(failed),
        **{f"failed_{severity}": failed.count(severity) for severity in ("critical", "warning", "info")},
        "rows": run.rows,
        "seconds": round(run.seconds, 2),
    }


def _run_suites(context: RunContext, postgres: Postgres, suites: Sequence[str], *, fix: str) -> list[SuiteRun]:
    """Run the checkpoint on some of its suites, one after the other, and build the pages of Data Docs."""
    runs, pages = [], []
    with open_context(context.settings, postgres) as gx_context, postgres.connect(autocommit=True) as connection:
        checkpoint = gx_context.checkpoints.get(CHECKPOINT)
        definitions = {definition.suite.name: definition for definition in checkpoint.validation_definitions}
        with context.progress.task("suites judged", total=len(suites), unit="suites") as advance:
            for name in suites:
                started = time.monotonic()
                meta = definitions[name].suite.meta
                _require_table(connection, meta["table"], fix=fix)
                checkpoint.validation_definitions = [definitions[name]]
                checkpoint.save()  # in the copy: Great Expectations runs only what is stored
                result = checkpoint.run(
                    expectation_parameters=suite_parameters(context.settings),
                    run_id=RunIdentifier(run_name=context.run_id, run_time=datetime.now(UTC)),
                )
                ((page, outcome),) = result.run_results.items()
                pages.append(page)
                findings = findings_of_suite(cast("Any", outcome).to_json_dict(), meta)
                runs.append(
                    SuiteRun(
                        name,
                        tuple(_with_examples(connection, finding, meta["keys"]) for finding in findings),
                        rows=max((finding.checked_rows or 0 for finding in findings), default=0),
                        seconds=time.monotonic() - started,
                    )
                )
                advance(1)
        forget_old_runs(context.settings)
        write_docs(context.settings, gx_context, pages)
    return runs


def _require_table(connection: psycopg.Connection, table: str, *, fix: str) -> None:
    found = connection.execute("select to_regclass(%s)", (table,)).fetchone()
    if found is None or found[0] is None:
        raise UsageError(f"there is no table {table} to judge yet", fix=fix)


def _with_examples(connection: psycopg.Connection, finding: Finding, keys: Sequence[str]) -> Finding:
    """A failed finding with a few rows that break the rule: Great Expectations is asked for counts only."""
    if finding.success:
        return finding
    wanted = example_query(finding, keys, EXAMPLES)
    if wanted is None:
        return finding
    query, values = wanted
    unexpected = finding.unexpected_rows
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query, values or None).fetchall()  # None: a percent sign in SQL of ours is itself
    if unexpected is None and finding.examples_query:
        counted = connection.execute(count_query(finding.examples_query, finding.table)).fetchone()
        unexpected = counted[0] if counted else None
    return replace(finding, unexpected_rows=unexpected, examples=tuple(_plain(row) for row in rows))


def _plain(row: Row) -> Row:
    """The row with values that JSON knows."""
    return {name: _plain_value(value) for name, value in row.items()}


def _plain_value(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if isinstance(value, date) else value  # a datetime is a date


def _store(postgres: Postgres, run_id: str, suites: Sequence[str], findings: Sequence[Finding]) -> None:
    """Replace what this run has stored of these suites, in one transaction: a step may be run again."""
    with postgres.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "delete from quality.validation_results where run_id = %s and suite = any(%s)", (run_id, list(suites))
        )
        cursor.executemany(
            "insert into quality.validation_results (run_id, suite, expectation, column_name, severity, success, "
            "checked_rows, unexpected_rows, unexpected_share, examples, parameters) "
            "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    run_id,
                    finding.suite,
                    finding.expectation,
                    finding.column,
                    finding.severity,
                    finding.success,
                    finding.checked_rows,
                    finding.unexpected_rows,
                    finding.unexpected_share,
                    Jsonb(list(finding.examples), dumps=json.dumps),
                    Jsonb({"rule": finding.rule, "table": finding.table, "error": finding.error, **finding.parameters}),
                )
                for finding in findings
            ],
        )
