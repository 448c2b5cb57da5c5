"""Results of Great Expectations in our words; no database, no Great Expectations."""

from typing import Any

import pytest

from energy_iot.quality.findings import (
    Finding,
    example_query,
    failure_text,
    findings_of_suite,
    fix_text,
    warning_sentence,
)

META = {"table": "staging.stg_meter_readings", "keys": ["reading_id", "meter_id"]}


def item(**changed: Any) -> dict[str, Any]:
    """One expectation's result as Great Expectations writes it."""
    configuration = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "humidity_pct", "min_value": 0.0, "max_value": 100.0, "batch_id": "postgres-x"},
        "meta": {"rule": "humidity is a percentage", "fix": "check the unit"},
        "severity": "critical",
    }
    outcome = {
        "success": False,
        "expectation_config": configuration,
        "result": {"element_count": 500, "missing_count": 20, "unexpected_count": 12},
        "exception_info": {"raised_exception": False, "exception_message": None},
    }
    for name, value in changed.items():
        (configuration if name in configuration else outcome)[name] = value
    return outcome


def found(**changed: Any) -> Finding:
    (finding,) = findings_of_suite({"suite_name": "staging_readings_suite", "results": [item(**changed)]}, META)
    return finding


def test_counts_leave_out_nulls() -> None:
    finding = found()
    assert (finding.checked_rows, finding.unexpected_rows, finding.unexpected_share) == (480, 12, 0.025)
    assert finding.how_often == "12 of 480 rows (2.50 %)"
    assert finding.parameters == {"column": "humidity_pct", "min_value": 0.0, "max_value": 100.0}
    assert finding.is_critical


def test_small_shares_are_not_rounded_to_nothing() -> None:
    finding = found(result={"element_count": 2_000_000, "missing_count": 0, "unexpected_count": 3})
    assert finding.how_often == "3 of 2,000,000 rows (0.0002 %)"


def test_a_column_of_nulls_has_no_share() -> None:
    finding = found(success=True, result={"element_count": 500, "missing_count": 500, "unexpected_count": 0})
    assert (finding.checked_rows, finding.unexpected_share, finding.is_critical) == (0, None, False)


@pytest.mark.parametrize(
    ("expectation", "kwargs", "result", "how_often", "examples"),
    [
        ("expect_table_row_count_to_be_between", {"min_value": 1}, {"observed_value": 0}, "0 rows", ()),
        ("unexpected_rows_expectation", {"unexpected_rows_query": "select 1"}, {"observed_value": 3}, "3 found", ()),
        (
            "expect_table_columns_to_match_set",
            {"column_set": ["a", "b", "c"]},
            {"observed_value": ["b"]},
            "-",
            ({"missing_column": "a"}, {"missing_column": "c"}),
        ),
        ("expect_query_results_to_match_comparison", {"base_query": "x"}, {"unexpected_count": 1}, "-", ()),
    ],
)
def test_counts_of_rules_on_tables(
    expectation: str, kwargs: dict[str, Any], result: dict[str, Any], how_often: str, examples: tuple[Any, ...]
) -> None:
    finding = found(type=expectation, kwargs=kwargs, result=result)
    assert finding.how_often == how_often
    assert finding.examples == examples
    assert finding.column is None


@pytest.mark.parametrize(
    "exception_info",
    [
        {"raised_exception": True, "exception_message": "column x does not exist\nmore"},
        {"('metric', (), ())": {"raised_exception": True, "exception_message": "column x does not exist\nmore"}},
    ],
)
def test_a_rule_that_could_not_be_judged_has_failed(exception_info: dict[str, Any]) -> None:
    finding = found(success=True, result={}, exception_info=exception_info)
    assert not finding.success
    assert finding.error == "column x does not exist"
    assert finding.how_often == "not judged"
    assert example_query(finding, META["keys"], 5) is None
    assert "    error: column x does not exist" in failure_text([finding])


def test_critical_rules_come_first() -> None:
    results = [item(severity=severity) for severity in ("info", "warning", "critical", "warning")]
    findings = findings_of_suite({"suite_name": "s", "results": results}, META)
    assert [finding.severity for finding in findings] == ["critical", "warning", "warning", "info"]


def test_texts() -> None:
    finding = found()
    shown = Finding(**(vars(finding) | {"examples": ({"reading_id": 7, "humidity_pct": None},)}))
    other = found(severity="warning", meta={"rule": "wind blows", "fix": "wait"})
    assert failure_text([shown, other]) == (
        "the data break 1 critical rule of 2:\n"
        "  table                       how often                what should hold\n"
        "  staging.stg_meter_readings  12 of 480 rows (2.50 %)  humidity is a percentage\n"
        "      e.g. reading_id 7, humidity_pct null"
    )
    assert fix_text([shown, shown, other]) == "check the unit"
    second = found(meta={"rule": "r", "fix": "look"})
    assert fix_text([shown, second]) == "\n    - check the unit\n    - look"
    assert warning_sentence(other) == (
        "staging.stg_meter_readings: not so that wind blows: 12 of 480 rows (2.50 %); wait"
    )


@pytest.mark.parametrize(
    ("changed", "query", "values"),
    [
        (
            {},
            'select "reading_id", "meter_id", "humidity_pct" from "stg_meter_readings" '
            'where "humidity_pct" < %s or "humidity_pct" > %s order by "reading_id", "meter_id" limit 5',
            (0.0, 100.0),
        ),
        (
            {"kwargs": {"column": "humidity_pct", "max_value": 1}},
            'select "reading_id", "meter_id", "humidity_pct" from "stg_meter_readings" '
            'where "humidity_pct" > %s order by "reading_id", "meter_id" limit 5',
            (1,),
        ),
        (
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "meter_id"}},
            'select "reading_id", "meter_id" from "stg_meter_readings" '
            'where "meter_id" is null order by "reading_id", "meter_id" limit 5',
            (),
        ),
        (
            {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "meter_id", "value_set": ["a"]}},
            'select "reading_id", "meter_id" from "stg_meter_readings" '
            'where "meter_id" <> all(%s) order by "reading_id", "meter_id" limit 5',
            (["a"],),
        ),
        (
            {"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": "select 1 from {batch}"}},
            "select * from (select 1 from stg_meter_readings) as broken limit 5",
            (),
        ),
    ],
)
def test_example_queries(changed: dict[str, Any], query: str, values: tuple[Any, ...]) -> None:
    wanted = example_query(found(**changed), META["keys"], 5)
    assert wanted is not None
    assert (wanted[0].as_string(None), wanted[1]) == (query, values)


def test_rules_without_rows_have_no_examples() -> None:
    finding = found(type="expect_table_row_count_to_be_between", kwargs={"min_value": 1}, result={"observed_value": 0})
    assert example_query(finding, META["keys"], 5) is None
