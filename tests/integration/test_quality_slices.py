"""Gates judge what is new: faults are found where something changed, told once, and told again until they are gone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from energy_iot.errors import DataQualityError, StoreUnavailableError
from energy_iot.pipeline import RunContext, run_step
from energy_iot.quality.slices import MARTS_GATE, STAGING_GATE, Gate, find_task
from energy_iot.quality.suites import read_suites
from energy_iot.quality.validation import validate_marts, validate_staging
from energy_iot.reporting.progress import Advance, Progress
from energy_iot.retention import remove_old_records
from energy_iot.settings import Settings
from energy_iot.storage.changes import latest_change, read_state, write_state
from energy_iot.storage.postgres import Postgres, settings_for_role
from energy_iot.storage.role_names import LOADER, TRANSFORMER
from energy_iot.storage.roles import initialise_database
from tests.quality_fleet import LATEST, change_days, examples_of, failed_rules, follow, make_fleet, plant

MakeContext = Callable[..., RunContext]
DAYS = 75  # to the middle of March: changed days may lie at both ends of a week, and of a month
STAGED, DAILY, METRICS, SCORES = (
    "staging_readings_suite",
    "daily_readings_suite",
    "marts_metrics_suite",
    "marts_scores_suite",
)


@pytest.fixture
def fleet(postgres: Postgres) -> Iterator[psycopg.Connection]:
    """A fleet that came with one file, and was judged whole by nobody yet."""
    with postgres.connect(autocommit=True) as connection:
        make_fleet(connection, days=DAYS)
        change_days(connection, ("m1", "2024-01-01"))
        follow(connection)
        yield connection


@pytest.fixture
def passed(fleet: psycopg.Connection) -> psycopg.Connection:
    """The fleet, with everything in it judged and let pass; without the work of judging it."""
    for gate in (STAGING_GATE, MARTS_GATE):
        state = find_task(fleet, gate, Settings(), full_refresh=False).passed
        assert state is not None
        write_state(fleet, state)
    return fleet


def all_days() -> list[tuple[str, str]]:
    return [(meter, str(date(2024, 1, 1) + timedelta(days=day))) for day in range(DAYS) for meter in ("m1", "m2")]


def where(day: str, meter: str = "m1") -> str:
    return f"meter_id = '{meter}' and cast(reading_timestamp as date) = '{day}'"


def test_what_has_passed_is_not_judged_again(fleet: psycopg.Connection, make_context: MakeContext) -> None:
    first = make_context()
    whole = validate_staging(first)
    assert whole.details["mode"] == "whole"
    assert read_state(fleet, STAGING_GATE.name).change_id == latest_change(fleet) == 1

    context = make_context()
    assert run_step(STAGING_GATE.name, context).report.skipped == "up to date"
    assert fleet.execute("select distinct run_id from quality.validation_results").fetchall() == [(first.run_id,)]

    settings = make_context().settings
    assert find_task(fleet, STAGING_GATE, settings, full_refresh=True).pending.whole
    stricter = settings.model_copy(update={"max_temperature_c": 20})  # all readings are judged by another threshold
    assert find_task(fleet, STAGING_GATE, stricter, full_refresh=False).pending.whole
    follow(fleet, fingerprint="built by other SQL")
    assert find_task(fleet, STAGING_GATE, settings, full_refresh=False).pending.whole
    follow(fleet, fingerprint="")  # built by dbt without the program
    task = find_task(fleet, STAGING_GATE, settings, full_refresh=False)
    assert (task.pending.whole, task.passed) == (True, None)


def test_a_fault_is_told_with_the_days_it_came_with_and_not_again(
    passed: psycopg.Connection, make_context: MakeContext
) -> None:
    plant(
        passed,
        f"update staging.stg_meter_readings set consumption_kwh = -1 where {where('2024-01-10')}",  # an old day
        f"update staging.stg_meter_readings set consumption_kwh = -2 where {where('2024-02-20')} and hour_of_day < 2",
        "insert into raw_data.meter_readings (meter_id, timestamp, electricity_consumed, source_file, file_id) "
        "values ('m1', '2024-02-20 12:00', null, 'new.csv', 7), ('m1', '2024-02-20 13:00', 0.5, 'new.csv', 7)",
        "update intermediate.int_readings_daily set completeness = 0.5 "
        "where reading_date in ('2024-01-10', '2024-02-20')",
    )
    change_days(passed, ("m1", "2024-02-20"), file_id=7)
    follow(passed)
    context = make_context()
    report = validate_staging(context)

    assert (report.rows_in, report.rows_out) == (2 + 48 + 1, 2 + 48 + 1)  # readings of the file, of the day, the day
    assert (report.details["mode"], report.details["changed_days"]) == ("incremental", 1)
    assert failed_rules(passed, context) == {
        "raw_readings_suite: few readings come without consumption": ("warning", 1),
        f"{STAGED}: consumption is plausible in every reading": ("warning", 4),
        f"{DAILY}: days are complete": ("warning", 1),
    }
    assert "1 of 2 rows of the new files (50.00 %)" in report.warnings[0]
    assert "4 of 48 rows of the changed days (8.33 %)" in report.warnings[1]
    assert examples_of(passed, context, f"{STAGED}: consumption is plausible in every reading")[0][
        "reading_timestamp"
    ].startswith("2024-02-20")
    stored = passed.execute("select distinct suite, parameters ->> 'judged' from quality.validation_results").fetchall()
    assert ("raw_readings_suite", "rows of the new files") in stored
    assert len(stored) == 3
    assert validate_staging(make_context()).skipped == "up to date"


def test_what_a_failed_gate_saw_is_judged_again_with_what_is_newer(
    passed: psycopg.Connection, make_context: MakeContext
) -> None:
    plausible = f"{STAGED}: consumption is plausible in almost all readings"
    plant(passed, f"update staging.stg_meter_readings set consumption_kwh = 1000 where {where('2024-02-20')}")
    change_days(passed, ("m1", "2024-02-20"))
    follow(passed)
    with pytest.raises(DataQualityError, match=r"48 of 48 rows of the changed days \(100\.00 %\)"):
        validate_staging(make_context())
    assert read_state(passed, STAGING_GATE.name).change_id == 1

    change_days(passed, ("m2", "2024-02-21"))
    follow(passed)
    context = make_context()
    with pytest.raises(DataQualityError):
        validate_staging(context)
    assert failed_rules(passed, context)[plausible] == ("critical", 48)

    plant(passed, f"update staging.stg_meter_readings set consumption_kwh = 0.3 where {where('2024-02-20')}")
    report = validate_staging(make_context())  # corrected: both days are judged, and pass
    assert report.details["suites"][STAGED]["rows"] == 96
    assert read_state(passed, STAGING_GATE.name).change_id == 3


def test_a_spike_or_a_bad_hour_does_not_stop_a_day(passed: psycopg.Connection, make_context: MakeContext) -> None:
    plant(
        passed,
        f"update staging.stg_meter_readings set consumption_kwh = 1000 where {where('2024-02-20')} and hour_of_day = 3",
        f"update staging.stg_meter_readings set temperature_c = 500 where {where('2024-02-20')} and hour_of_day = 3",
    )
    change_days(passed, ("m1", "2024-02-20"))
    follow(passed)
    context = make_context()
    validate_staging(context)
    assert failed_rules(passed, context) == {f"{STAGED}: consumption is plausible in every reading": ("warning", 2)}


def test_slices_of_everything_and_whole_tables_give_equal_findings(
    fleet: psycopg.Connection, make_context: MakeContext
) -> None:
    plant(
        fleet,
        "update staging.stg_meter_readings set consumption_kwh = 1000 where reading_id between 501 and 520",
        "update staging.stg_meter_readings set temperature_c = 140 where reading_id between 601 and 800",
        "update staging.stg_meter_readings set wind_speed_kmh = -5 where reading_id between 601 and 720",
        "update staging.stg_meter_readings set sub_metering_1_kwh = 50 where meter_id = 'm2'",
        "insert into staging.stg_meter_readings select * from staging.stg_meter_readings where reading_id = 901",
        "update intermediate.int_readings_daily set completeness = 2 where reading_date < '2024-01-05'",
        "delete from intermediate.int_readings_daily where reading_date = '2024-01-20' and meter_id = 'm1'",
        "update marts.mart_consumption_metrics set load_factor = 1.5 where period_type = 'day' and meter_id = 'm1'",
        "update marts.mart_consumption_metrics set consumption_kwh = consumption_kwh + 1 where period_type = 'week'",
        "delete from marts.mart_consumption_metrics where period_type = 'month' and period_start = '2024-02-01'",
        "insert into marts.mart_consumption_metrics select * from marts.mart_consumption_metrics "
        "where period_type = 'week' and meter_id = 'm2' and period_start = '2024-01-08'",
        "update marts.mart_anomaly_scores set anomaly_type = 'theft' where reading_id = 200",
        "delete from marts.mart_anomaly_scores where reading_id = 55",
    )
    found = {}
    for mode in ("whole", "incremental"):
        context = make_context()
        for judge in (validate_staging, validate_marts):
            with pytest.raises(DataQualityError):
                judge(context)
        found[mode] = findings(fleet, context)
        for gate in (STAGING_GATE, MARTS_GATE):  # as if nothing had been there at first, and then all had come
            fleet.execute(
                "insert into quality.derived_states (name, change_id, fingerprint) values (%s, 0, %s) "
                "on conflict do nothing",
                (gate.name, gate_fingerprint(fleet, gate)),
            )
        change_days(fleet, *all_days())
        follow(fleet)
    of_tables = {
        (name, rule["meta"]["rule"])
        for name, suite in read_suites(STAGING_GATE.suites + MARTS_GATE.suites).items()
        for rule in suite["expectations"]
        if rule["meta"].get("whole_table_only")
    }
    assert len(of_tables) == 3
    assert found["incremental"] == {key: of for key, of in found["whole"].items() if key not in of_tables}
    assert sum(not of["success"] for of in found["whole"].values()) >= 12


def gate_fingerprint(connection: psycopg.Connection, gate: Gate) -> str:
    state = find_task(connection, gate, Settings(), full_refresh=False).passed
    assert state is not None
    return state.fingerprint


def findings(connection: psycopg.Connection, context: RunContext) -> dict[tuple[str, str], dict[str, Any]]:
    rows = connection.execute(
        "select suite, parameters ->> 'rule', success, severity, checked_rows, unexpected_rows, examples "
        "from quality.validation_results where run_id = %s",
        (context.run_id,),
    ).fetchall()
    names = ("success", "severity", "checked_rows", "unexpected_rows", "examples")
    return {(suite, rule): dict(zip(names, rest, strict=True)) for suite, rule, *rest in rows}


def test_weeks_and_months_that_begin_or_end_with_the_data_pass(
    passed: psycopg.Connection, make_context: MakeContext
) -> None:
    change_days(passed, ("m1", "2024-01-01"), ("m2", "2024-03-15"))
    follow(passed)
    context = make_context()
    assert validate_marts(context).details["mode"] == "incremental"
    assert failed_rules(passed, context) == {}


@pytest.mark.parametrize("day", ["2024-02-01", "2024-02-29"])  # within weeks that two months share
def test_sums_are_compared_for_the_week_and_month_of_a_changed_day(
    passed: psycopg.Connection, make_context: MakeContext, day: str
) -> None:
    mart = "marts.mart_consumption_metrics"
    plant(
        passed,
        f"update {mart} set consumption_kwh = consumption_kwh + 1 where meter_id = 'm1' "
        f"and period_type in ('week', 'month') and period_start = date_trunc(period_type, date '{day}')",
        # these do not hold the day
        f"update {mart} set consumption_kwh = consumption_kwh + 1 where meter_id = 'm1' "
        f"and period_type in ('week', 'month') and period_start <> date_trunc(period_type, date '{day}')",
        f"update {mart} set consumption_kwh = consumption_kwh + 1 where meter_id = 'm2'",
    )
    change_days(passed, ("m1", day))
    follow(passed)
    bad = make_context()
    with pytest.raises(DataQualityError):
        validate_marts(bad)
    assert failed_rules(passed, bad) == {
        f"{METRICS}: days sum to their week": ("critical", 1),
        f"{METRICS}: days sum to their month": ("critical", 1),
    }


def test_totals_are_compared_for_the_changed_days_on_both_sides(
    passed: psycopg.Connection, make_context: MakeContext
) -> None:
    plant(
        passed,
        f"update staging.stg_meter_readings set consumption_kwh = consumption_kwh + 1 where {where('2024-02-19')}",
        "update staging.stg_meter_readings set consumption_kwh = consumption_kwh + 0.5 "
        f"where {where('2024-02-20', 'm2')}",
    )
    change_days(passed, ("m1", "2024-02-20"), ("m2", "2024-02-20"))
    follow(passed)
    context = make_context()
    with pytest.raises(DataQualityError):
        validate_marts(context)
    total = f"{METRICS}: the mart's total is staging's total"
    assert failed_rules(passed, context) == {total: ("critical", 1)}
    (example,) = examples_of(passed, context, total)
    assert example["meter_id"] == "m2"
    assert (example["staging_readings"], example["mart_readings"]) == (48, 48)
    assert example["staging_kwh"] - example["mart_kwh"] == pytest.approx(48 * 0.5)


def test_scores_are_compared_where_habits_changed(passed: psycopg.Connection, make_context: MakeContext) -> None:
    plant(
        passed,
        f"delete from marts.mart_anomaly_scores where {where('2024-01-31')}",  # before the change: not scored anew
        f"delete from marts.mart_anomaly_scores where {where('2024-03-01')} "
        "and extract(hour from reading_timestamp) = 1",
    )
    change_days(passed, ("m1", "2024-02-20"))
    follow(passed)
    context = make_context()
    with pytest.raises(DataQualityError):
        validate_marts(context)
    assert failed_rules(passed, context) == {f"{SCORES}: {LATEST}": ("critical", 2)}
    row = passed.execute(
        "select checked_rows from quality.validation_results where run_id = %s and column_name = 'reading_id'",
        (context.run_id,),
    ).fetchone()
    assert row == ((29 - 20 + 1 + 15) * 48 - 2,)  # from the changed day to the last


def test_a_silence_is_told_of_the_day_after_it(passed: psycopg.Connection, make_context: MakeContext) -> None:
    plant(
        passed, "delete from intermediate.int_readings_daily where reading_date between '2024-02-16' and '2024-02-19'"
    )
    change_days(passed, ("m1", "2024-02-10"), ("m1", "2024-02-20"), ("m1", "2024-03-01"))  # far apart, without silence
    follow(passed)
    context = make_context()
    validate_staging(context)
    silence = f"{DAILY}: no meter is silent for a whole day"
    assert failed_rules(passed, context) == {silence: ("info", 1)}
    assert examples_of(passed, context, silence) == [
        {"meter_id": "m1", "last_date_before": "2024-02-15", "first_date_after": "2024-02-20"}
    ]


def test_nothing_left_is_nothing_to_judge(passed: psycopg.Connection, make_context: MakeContext) -> None:
    change_days(passed, ("m9", "2024-02-20"), kind="load", file_id=9)
    change_days(passed, ("m9", "2024-02-20"), kind="forget", file_id=9)
    follow(passed)
    for judge, gate in ((validate_staging, STAGING_GATE), (validate_marts, MARTS_GATE)):
        assert judge(make_context()).skipped == "nothing is left of what changed"
        assert read_state(passed, gate.name).change_id == 3


def test_a_gate_goes_no_further_than_its_tables(passed: psycopg.Connection, make_context: MakeContext) -> None:
    change_days(passed, ("m1", "2024-02-20"))  # loaded, and nothing built since
    assert validate_staging(make_context()).skipped == "up to date"
    follow(passed)
    assert validate_staging(make_context()).details["changed_days"] == 1


def test_gates_and_retention_need_no_more_than_the_rights_of_their_roles(
    passed: psycopg.Connection, settings: Settings, make_context: MakeContext
) -> None:
    change_days(passed, ("m1", "2024-02-20"))
    follow(passed)
    initialise_database(settings)
    loader, transformer = (settings_for_role(settings, role) for role in (LOADER, TRANSFORMER))
    assert len({settings.postgres_dsn, loader.postgres_dsn, transformer.postgres_dsn}) == 3
    for judge in (validate_staging, validate_marts):
        assert judge(replace(make_context(), settings=transformer)).details["mode"] == "incremental"
    for acting in (loader, transformer):
        remove_old_records(acting)
    assert passed.execute("select count(*) from raw_data.changed_days").fetchone() == (0,)


class EndsTheSession(Progress):
    """Has the server end the sessions of this database when the first suite has been judged."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
        def advance(_amount: int) -> None:
            with self._postgres.connect(autocommit=True) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
                    "where datname = current_database() and pid <> pg_backend_pid() and query not like '%test%'"
                )

        yield advance


def test_a_lost_session_leaves_nothing_and_is_told_as_such(
    passed: psycopg.Connection, postgres: Postgres, make_context: MakeContext
) -> None:
    change_days(passed, ("m1", "2024-02-20"))
    follow(passed)
    passed.execute("select 'test'")  # what marks the session of this test
    with pytest.raises(StoreUnavailableError, match="PostgreSQL at"):
        validate_staging(replace(make_context(), progress=EndsTheSession(postgres)))
    assert passed.execute("select count(*) from quality.validation_results").fetchone() == (0,)
    assert passed.execute("select count(*) from pg_class where relname = 'judged_days'").fetchone() == (0,)
    assert read_state(passed, STAGING_GATE.name).change_id == 1
    assert validate_staging(make_context()).details["changed_days"] == 1
