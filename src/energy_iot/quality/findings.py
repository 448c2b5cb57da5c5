"""What Great Expectations found, in our words: one finding for each rule, and the texts made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One rule, judged.

    Attributes:
        suite: Name of the expectation suite.
        table: Schema and table that were judged.
        rule: What should hold, as the middle of a sentence.
        fix: What to do where it does not.
        expectation: Type of the expectation in Great Expectations.
        column: Its column, if it is about one.
        severity: critical, warning or info.
        success: Whether it holds.
        checked_rows: Rows looked at, nulls left out where the rule leaves them out; None where it is not about rows.
        unexpected_rows: Rows that break the rule (or groups of rows, where the rule is a query); None as above.
        unexpected_share: `unexpected_rows` / `checked_rows`, 0 to 1.
        parameters: Arguments of the expectation, thresholds filled in.
        error: Why it could not be judged, or None.
        examples_query: A query of the suite for rows that break the rule, `{batch}` standing for the table.
        examples: A few rows that break it: key columns and values.
        judged: Which rows of the table were judged, such as "of the changed days"; None for all.
    """

    suite: str
    table: str
    rule: str
    fix: str
    expectation: str
    column: str | None
    severity: str
    success: bool
    checked_rows: int | None
    unexpected_rows: int | None
    unexpected_share: float | None
    parameters: Mapping[str, Any]
    error: str | None = None
    examples_query: str | None = None
    examples: tuple[Row, ...] = ()
    judged: str | None = None

    @property
    def is_critical(self) -> bool:
        """Whether it failed and must stop the run."""
        return not self.success and self.severity == "critical"

    @property
    def how_often(self) -> str:
        """Such as "12 of 480 rows of the changed days (2.50 %)"."""
        if self.error:
            return "not judged"
        rows = f"rows {self.judged}" if self.judged else "rows"
        if self.unexpected_rows is None:
            return f"{self.checked_rows:,} {rows}" if self.checked_rows is not None else "-"
        if self.unexpected_share is None:
            return f"{self.unexpected_rows:,} found{f' in the {rows}' if self.judged else ''}"
        share = self.unexpected_share * 100
        return f"{self.unexpected_rows:,} of {self.checked_rows:,} {rows} ({share:.{2 if share >= 0.01 else 4}f} %)"

    @property
    def relation(self) -> str:
        """The table without its schema: the session that judges knows whether it is the whole or a slice."""
        return self.table.split(".")[-1]


def findings_of_suite(
    result: Mapping[str, Any], suite_meta: Mapping[str, Any], *, judged: str | None = None
) -> list[Finding]:
    """Read the validation result of one suite (as JSON) into findings, critical rules first.

    Args:
        result: Of the suite.
        suite_meta: Its `meta`.
        judged: Which rows of the table were judged; None for all.
    """
    findings = [_finding(item, result["suite_name"], suite_meta["table"], judged) for item in result["results"]]
    return sorted(findings, key=lambda finding: ("critical", "warning", "info").index(finding.severity))


def _finding(item: Mapping[str, Any], suite: str, table: str, judged: str | None) -> Finding:
    configuration, result = item["expectation_config"], item.get("result") or {}
    kwargs = {name: value for name, value in configuration["kwargs"].items() if name != "batch_id"}
    meta = configuration["meta"]
    checked, unexpected, examples = _counts(configuration["type"], kwargs, result)
    error = _error(item.get("exception_info") or {})
    return Finding(
        suite=suite,
        table=table,
        rule=meta["rule"],
        fix=meta["fix"],
        expectation=configuration["type"],
        column=kwargs.get("column"),
        severity=configuration["severity"],
        success=bool(item["success"]) and error is None,
        checked_rows=checked,
        unexpected_rows=unexpected,
        unexpected_share=unexpected / checked if checked and unexpected is not None else None,
        parameters=kwargs,
        error=error,
        examples_query=meta.get("examples") or kwargs.get("unexpected_rows_query"),
        examples=examples,
        judged=judged,
    )


def _counts(
    expectation: str, kwargs: Mapping[str, Any], result: Mapping[str, Any]
) -> tuple[int | None, int | None, tuple[Row, ...]]:
    """Rows checked, rows unexpected, and the examples that the result itself holds."""
    if expectation == "expect_table_row_count_to_be_between":
        return result.get("observed_value"), None, ()
    if expectation == "expect_table_columns_to_match_set":
        missing = sorted(set(kwargs["column_set"]) - set(result.get("observed_value") or kwargs["column_set"]))
        return None, None, tuple({"missing_column": name} for name in missing)
    if expectation == "unexpected_rows_expectation":
        return None, result.get("observed_value"), ()
    if expectation == "expect_query_results_to_match_comparison":
        return None, None, ()  # its counts are lines of two answers, and say nothing to a person
    elements = result.get("element_count")
    # the rules on values leave nulls out; the rule against nulls counts them and has no missing_count
    checked = elements - result.get("missing_count", 0) if elements is not None else None
    return checked, result.get("unexpected_count"), ()


def _error(exception_info: Mapping[str, Any]) -> str | None:
    """The first exception's message; Great Expectations nests them by metric where metrics failed."""
    nested = [info for info in exception_info.values() if isinstance(info, Mapping)] or [exception_info]
    for info in nested:
        if info.get("raised_exception"):
            lines = str(info.get("exception_message") or "unknown error").strip().splitlines()
            return lines[0][:300]
    return None


def example_query(finding: Finding, keys: Sequence[str], limit: int) -> tuple[sql.Composed, tuple[Any, ...]] | None:
    """The query for rows that break a failed rule, and its parameters; None where rows say nothing.

    Source: the conditions are the negations of what Great Expectations' rules of the same names ask.
    """
    table = sql.Identifier(finding.relation)
    if finding.error:
        return None
    if finding.examples_query:
        rows = sql.SQL(finding.examples_query.format(batch=finding.relation))
        return sql.SQL("select * from ({}) as broken limit {}").format(rows, sql.Literal(limit)), ()
    if finding.column is None:
        return None
    column = sql.Identifier(finding.column)
    values: tuple[Any, ...]
    if finding.expectation == "expect_column_values_to_not_be_null":
        condition, values = sql.SQL("{0} is null").format(column), ()
    elif finding.expectation == "expect_column_values_to_be_between":
        low, high = finding.parameters.get("min_value"), finding.parameters.get("max_value")
        sides = [
            sql.SQL("{0} {1} %s").format(column, sql.SQL(operator))
            for operator, bound in (("<", low), (">", high))
            if bound is not None
        ]
        condition, values = sql.SQL(" or ").join(sides), tuple(bound for bound in (low, high) if bound is not None)
    elif finding.expectation == "expect_column_values_to_be_in_set":
        condition, values = sql.SQL("{0} <> all(%s)").format(column), (finding.parameters["value_set"],)
    else:
        return None
    shown = [*keys, *([finding.column] if finding.column not in keys else [])]
    names = sql.SQL(", ").join(map(sql.Identifier, shown))
    order = sql.SQL(", ").join(map(sql.Identifier, keys))
    query = sql.SQL("select {0} from {1} where {2} order by {3} limit {4}").format(
        names, table, condition, order, sql.Literal(limit)
    )
    return query, values


def count_query(query: str, relation: str) -> sql.Composed:
    """How many rows a query of the suite finds."""
    return sql.SQL("select count(*) from ({}) as broken").format(sql.SQL(query.format(batch=relation)))


def failure_text(findings: Sequence[Finding]) -> str:
    """A table of the critical failures: where, how often, what, with examples."""
    failed = [finding for finding in findings if finding.is_critical]
    rows = [("table", "how often", "what should hold"), *((f.table, f.how_often, f.rule) for f in failed)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}" for row in rows]
    table = [lines[0]]
    for finding, line in zip(failed, lines[1:], strict=True):
        table.append(line)
        if finding.error:
            table.append(f"    error: {finding.error}")
        table += [f"    e.g. {_example_text(example)}" for example in finding.examples]
    count = f"{len(failed)} critical rule{'s' if len(failed) > 1 else ''} of {len(findings)}"
    return f"the data break {count}:\n  " + "\n  ".join(table)


def fix_text(findings: Sequence[Finding]) -> str:
    """What to do about the critical failures, each advice once."""
    advice = dict.fromkeys(finding.fix for finding in findings if finding.is_critical)
    return "; ".join(advice) if len(advice) == 1 else "".join(f"\n    - {text}" for text in advice)


def warning_sentence(finding: Finding) -> str:
    """One sentence for the summary of a run."""
    example = f", e.g. {_example_text(finding.examples[0])}" if finding.examples else ""
    reason = f" ({finding.error})" if finding.error else ""
    return f"{finding.table}: not so that {finding.rule}: {finding.how_often}{reason}{example}; {finding.fix}"


def _example_text(example: Row) -> str:
    return ", ".join(f"{name} {'null' if value is None else value}" for name, value in example.items())
