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
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from energy_iot.errors import DataQualityError, UsageError
from energy_iot.pipeline import RunContext, StepReport
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
from energy_iot.quality.slices import (
    MARTS_GATE,
    STAGING_GATE,
    Gate,
    Slice,
    cut_slices,
    find_task,
    judge_whole_tables,
)
from energy_iot.quality.suites import read_suites, suite_for_slice, suite_parameters
from energy_iot.settings import Settings
from energy_iot.storage.changes import DerivedState, write_state
from energy_iot.storage.postgres import Postgres, open_postgres

EXAMPLES: Final = 5


@dataclass(frozen=True)
class SuiteRun:
    """A suite, run."""

    name: str
    findings: tuple[Finding, ...]
    rows: int
    seconds: float


def validate_staging(context: RunContext) -> StepReport:
    """Judge readings as they came, readings as staged, and the completeness of days: what is new, or all.

    Returns:
        rows_in and rows_out: rows judged; warnings: non-critical failures; details: figures by suite. Skipped when all
        that is there has passed before, and when nothing is left of what changed.

    Raises:
        DataQualityError: A critical rule does not hold; results are stored and Data Docs built all the same, and the
            same rows are judged again next time.
        UsageError: A table is not there yet.
        StoreUnavailableError: The database went away meanwhile.
    """
    return _validate(context, STAGING_GATE)


def validate_marts(context: RunContext) -> StepReport:
    """Judge marts.mart_consumption_metrics and marts.mart_anomaly_scores; as `validate_staging` otherwise."""
    return _validate(context, MARTS_GATE)


def build_data_docs(settings: Settings) -> Path:
    """Build Data Docs anew from the suites and the results kept under home; returns their first page."""
    from energy_iot.quality.context import docs_dir, open_context, write_docs

    with open_context(settings) as context:
        write_docs(settings, context)
    return docs_dir(settings) / "index.html"


def describe_context(settings: Settings) -> str:
    """Load the file context and list the suites of its checkpoint with their rules; needs no database."""
    from energy_iot.quality.context import CHECKPOINT, open_context

    lines = []
    with open_context(settings) as context:
        for definition in context.checkpoints.get(CHECKPOINT).validation_definitions:
            suite = definition.suite
            lines.append(f"{suite.name}: {suite.meta['table']}, {len(suite.expectations)} rules")
            lines += [f"  {rule.severity.value:<8}  {(rule.meta or {})['rule']}" for rule in suite.expectations]
    return "\n".join(lines)


def _validate(context: RunContext, gate: Gate) -> StepReport:
    settings = context.settings
    suites = read_suites(gate.suites)
    with open_postgres(settings) as postgres:
        # rules see committed tables only, and one that fails to run must not end a transaction of all
        with postgres.connect(autocommit=True) as connection:
            for suite in suites.values():
                _require_table(connection, suite["meta"]["table"], fix=gate.fix)
            task = find_task(connection, gate, settings, full_refresh=context.options.full_refresh)
            if task.pending.nothing:
                return StepReport(0, 0, skipped="up to date")
            cut = None
            if task.pending.since is None:
                judge_whole_tables(connection)
            else:
                cut = cut_slices(connection, gate, task.pending.since, settings)
                if not any(cut.rows.values()):
                    _store(postgres, context.run_id, gate, [], task.passed)
                    return StepReport(0, 0, skipped="nothing is left of what changed")
            runs = _run_suites(context, connection, suites, cut)
        findings = [finding for run in runs for finding in run.findings]
        critical = any(finding.is_critical for finding in findings)
        _store(postgres, context.run_id, gate, findings, None if critical else task.passed)
    return _report(settings, runs, findings, cut)


def _report(settings: Settings, runs: Sequence[SuiteRun], findings: Sequence[Finding], cut: Slice | None) -> StepReport:
    from energy_iot.quality.context import docs_dir

    page = docs_dir(settings) / "index.html"
    if any(finding.is_critical for finding in findings):
        raise DataQualityError(failure_text(findings), fix=f"{fix_text(findings)}\n  all results: {page}")
    rows = sum(run.rows for run in runs)
    return StepReport(
        rows_in=rows,
        rows_out=rows,
        warnings=tuple(
            warning_sentence(finding) for finding in findings if not finding.success and finding.severity == "warning"
        ),
        details={
            "mode": "incremental" if cut else "whole",
            **({"changed_days": cut.meter_days} if cut else {}),
            "suites": {run.name: _figures(run) for run in runs},
            "data_docs": str(page),
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


def _run_suites(
    context: RunContext, connection: psycopg.Connection, suites: dict[str, dict[str, Any]], cut: Slice | None
) -> list[SuiteRun]:
    """Run the checkpoint on some of its suites, one after the other, and build the pages of Data Docs."""
    from great_expectations.core import RunIdentifier

    from energy_iot.quality.context import CHECKPOINT, forget_old_runs, open_context, write_docs

    instead = {}
    if cut:
        for name, suite in suites.items():
            rows = cut.rows[suite["meta"]["table"].split(".")[-1]]
            instead[name] = suite_for_slice(suite, rows=rows, days=cut.dates)
    runs, pages = [], []
    with open_context(context.settings, connection, instead=instead) as gx_context:
        checkpoint = gx_context.checkpoints.get(CHECKPOINT)
        definitions = {definition.suite.name: definition for definition in checkpoint.validation_definitions}
        with context.progress.task("suites judged", total=len(suites), unit="suites") as advance:
            for name, suite in suites.items():
                started = time.monotonic()
                checkpoint.validation_definitions = [definitions[name]]
                checkpoint.save()  # in the copy: Great Expectations runs only what is stored
                result = checkpoint.run(
                    expectation_parameters=suite_parameters(context.settings),
                    run_id=RunIdentifier(run_name=context.run_id, run_time=datetime.now(UTC)),
                )
                if connection.closed:  # what Great Expectations makes of that are rules that could not be judged
                    raise psycopg.OperationalError("the connection is lost")
                ((page, outcome),) = result.run_results.items()
                pages.append(page)
                meta = suite["meta"]
                findings = findings_of_suite(
                    cast("Any", outcome).to_json_dict(), meta, judged=meta["slice"] if cut else None
                )
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
        counted = connection.execute(count_query(finding.examples_query, finding.relation)).fetchone()
        unexpected = counted[0] if counted else None
    return replace(finding, unexpected_rows=unexpected, examples=tuple(_plain(row) for row in rows))


def _plain(row: Row) -> Row:
    """The row with values that JSON knows."""
    return {name: _plain_value(value) for name, value in row.items()}


def _plain_value(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if isinstance(value, date) else value  # a datetime is a date


def _store(
    postgres: Postgres, run_id: str, gate: Gate, findings: Sequence[Finding], passed: DerivedState | None
) -> None:
    """Replace what this run has stored of the gate (a step may be run again), and keep the state it has passed to."""
    with postgres.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "delete from quality.validation_results where run_id = %s and suite = any(%s)", (run_id, list(gate.suites))
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
                    Jsonb(
                        {
                            "rule": finding.rule,
                            "table": finding.table,
                            "judged": f"rows {finding.judged or 'of the whole table'}",
                            "error": finding.error,
                            **finding.parameters,
                        }
                    ),
                )
                for finding in findings
            ],
        )
        if passed is not None:
            write_state(connection, passed)
