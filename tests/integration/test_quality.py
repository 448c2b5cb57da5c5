"""Great Expectations on a real database: good data pass, each planted fault is found by its rule and by no other."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from energy_iot.errors import DataQualityError, UsageError
from energy_iot.pipeline import RunContext, run_step
from energy_iot.quality.context import (
    docs_dir,
    forget_old_runs,
    open_context,
    validations_dir,
)
from energy_iot.quality.slices import MARTS_GATE, STAGING_GATE
from energy_iot.quality.suites import CONTEXT_DIR
from energy_iot.quality.validation import (
    build_data_docs,
    describe_context,
    validate_marts,
    validate_staging,
)
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres
from tests.quality_fleet import DAYS, LATEST, examples_of, failed_rules, make_fleet, plant

MakeContext = Callable[..., RunContext]
RULES = 44
READINGS = 2 * DAYS * 48


@pytest.fixture
def fleet(postgres: Postgres) -> Iterator[psycopg.Connection]:
    """A database where everything is as it should be; plant faults through the connection."""
    with postgres.connect(autocommit=True) as connection:
        make_fleet(connection)
        yield connection


@pytest.mark.parametrize("weather", ["1", "null", "0.01"], ids=["weather", "no weather", "normalised to 0..1"])
def test_good_data_pass(postgres: Postgres, make_context: MakeContext, weather: str) -> None:
    context = make_context()
    checkout = fingerprint(CONTEXT_DIR)
    with postgres.connect(autocommit=True) as connection:
        make_fleet(connection, weather=weather)
        staging, marts = validate_staging(context), validate_marts(context)
        assert failed_rules(connection, context) == {}
        stored = connection.execute("select count(*), count(*) filter (where success) from quality.validation_results")
        assert stored.fetchone() == (RULES, RULES)

    assert staging.rows_in == staging.rows_out == 2 * READINGS + 2 * DAYS  # raw, staging, days
    assert staging.warnings == marts.warnings == ()
    assert tuple(staging.details["suites"]) == STAGING_GATE.suites
    assert tuple(marts.details["suites"]) == MARTS_GATE.suites
    figures = staging.details["suites"]["raw_readings_suite"]
    assert figures["passed"] == figures["expectations"] > 0
    assert figures["failed_critical"] == figures["failed_warning"] == figures["failed_info"] == 0
    json.dumps([staging.details, marts.details])
    assert fingerprint(CONTEXT_DIR) == checkout, "the checkout was written to"


def fingerprint(folder: Path) -> dict[Path, str]:
    found = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}
    assert found
    return found


def test_each_critical_fault_of_the_feed_is_found(fleet: psycopg.Connection, make_context: MakeContext) -> None:
    context = make_context()
    # rows 1..n of the first meter; each fault has its own number of rows, so that no rule can answer for another
    plant(
        fleet,
        "update staging.stg_meter_readings set reading_id = null where reading_id = 101",
        "update staging.stg_meter_readings set meter_id = null where reading_id in (201, 203)",
        "update staging.stg_meter_readings set reading_timestamp = null where reading_id in (301, 303, 305)",
        "update staging.stg_meter_readings set consumption_kwh = null where reading_id in (401, 403, 405, 407)",
        "update staging.stg_meter_readings set consumption_kwh = 1000 where reading_id between 501 and 505",
        "update staging.stg_meter_readings set temperature_c = 140 where reading_id between 601 and 640",  # Fahrenheit
        "update staging.stg_meter_readings set humidity_pct = 101 where reading_id between 701 and 750",
        "insert into staging.stg_meter_readings select * from staging.stg_meter_readings where reading_id = 901",
        "update intermediate.int_readings_daily set completeness = 2 where reading_date < '2024-01-02'",
    )
    with pytest.raises(DataQualityError) as raised:
        validate_staging(context)

    suite = "staging_readings_suite"
    assert failed_rules(fleet, context) == {
        f"{suite}: reading_id is never empty": ("critical", 1),
        f"{suite}: meter_id is never empty": ("critical", 2),
        f"{suite}: reading_timestamp is never empty": ("critical", 3),
        f"{suite}: consumption_kwh is never empty": ("critical", 4),
        f"{suite}: consumption is plausible in almost all readings": ("critical", 5),
        f"{suite}: consumption is plausible in every reading": ("warning", 5),
        f"{suite}: temperature is plausible": ("critical", 40),
        f"{suite}: humidity is a percentage": ("critical", 50),
        f"{suite}: one reading for each meter and instant": ("critical", 1),
        "daily_readings_suite: no day holds more readings than its interval allows": ("critical", 2),
    }
    assert examples_of(fleet, context, f"{suite}: consumption is plausible in almost all readings")[0] == {
        "reading_id": 501,
        "meter_id": "m1",
        "reading_timestamp": "2024-01-06T05:00:00",
        "consumption_kwh": 1000.0,
    }
    assert examples_of(fleet, context, f"{suite}: one reading for each meter and instant") == [
        {"meter_id": "m1", "reading_timestamp": "2024-01-10T09:00:00", "readings": 2}
    ]
    assert len(examples_of(fleet, context, f"{suite}: temperature is plausible")) == 5

    error = raised.value
    assert error.exit_code == 4
    assert "9 critical rules of 23" in error.problem
    assert "staging.stg_meter_readings" in error.problem
    assert "40 of 2,881 rows (1.39 %)" in error.problem
    assert "reading_id 501, meter_id m1, reading_timestamp 2024-01-06T05:00:00, consumption_kwh 1000.0" in error.problem
    assert "consumption is plausible in every reading" not in error.problem  # a warning
    assert "raise max_consumption_kwh" in error.fix
    assert str(docs_dir(context.settings) / "index.html") in error.fix
    assert (docs_dir(context.settings) / "index.html").is_file()


def test_warnings_do_not_stop_a_run(fleet: psycopg.Connection, make_context: MakeContext) -> None:
    context = make_context()
    plant(
        fleet,
        "update raw_data.meter_readings set electricity_consumed = null where mod(id, 10) = 0",
        "update staging.stg_meter_readings set consumption_kwh = -1 where reading_id = 501",
        "update staging.stg_meter_readings set wind_speed_kmh = -5 where reading_id between 601 and 630",
        "update staging.stg_meter_readings set voltage_v = 11000 where reading_id between 701 and 731",
        "update staging.stg_meter_readings set sub_metering_1_kwh = 50 where meter_id = 'm2'",  # Wh
        "update intermediate.int_readings_daily set completeness = 0.5 where reading_date < '2024-01-03'",
        "delete from intermediate.int_readings_daily where reading_date = '2024-01-20' and meter_id = 'm1'",
    )
    finished = run_step("ge_validate_staging", context)

    suite = "staging_readings_suite"
    assert failed_rules(fleet, context) == {
        "raw_readings_suite: few readings come without consumption": ("warning", READINGS // 10),
        f"{suite}: consumption is plausible in every reading": ("warning", 1),
        f"{suite}: wind speed is not negative": ("warning", 30),
        f"{suite}: voltage is plausible": ("warning", 31),
        f"{suite}: sub-meters do not exceed their meter": ("warning", 1),
        "daily_readings_suite: days are complete": ("warning", 4),
        "daily_readings_suite: no meter is silent for a whole day": ("info", 1),
    }
    assert finished.status == "succeeded"
    warnings = finished.report.warnings
    assert len(warnings) == 6, "information is no warning"
    assert (
        "raw_data.meter_readings: not so that few readings come without consumption: 288 of 2,880 rows (10.00 %), "
        "e.g. id 10, meter_id m2, timestamp 2024-01-01T02:00:00, electricity_consumed null; "
        "ask the source why readings are missing; the gaps are in intermediate.int_reading_gaps"
    ) in warnings
    assert finished.report.details["suites"]["daily_readings_suite"] | {"seconds": 0} == {
        "expectations": 4,
        "passed": 2,
        "failed_critical": 0,
        "failed_warning": 1,
        "failed_info": 1,
        "rows": 2 * DAYS - 1,
        "seconds": 0,
    }
    assert examples_of(fleet, context, "daily_readings_suite: no meter is silent for a whole day") == [
        {"meter_id": "m1", "last_date_before": "2024-01-19", "first_date_after": "2024-01-21"}
    ]


def test_each_fault_of_the_marts_is_found(fleet: psycopg.Connection, make_context: MakeContext) -> None:
    context = make_context()
    plant(
        fleet,
        "update marts.mart_consumption_metrics set load_factor = 1.5 where period_type = 'day' and meter_id = 'm1'",
        "update marts.mart_consumption_metrics set peak_power_kw = avg_power_kw / 2 "
        "where period_type = 'week' and meter_id = 'm1'",
        "update marts.mart_consumption_metrics set consumption_kwh = consumption_kwh + 1 "
        "where period_type = 'week' and meter_id = 'm1' and period_start < '2024-01-15'",
        "delete from marts.mart_consumption_metrics where period_type = 'month' and meter_id = 'm2'",
        "insert into marts.mart_consumption_metrics select * from marts.mart_consumption_metrics "
        "where period_type = 'week' and meter_id = 'm2' and period_start = '2024-01-08'",
        "insert into marts.mart_consumption_metrics (meter_id, period_type, period_start, consumption_kwh) "
        "values ('m1', 'year', '2024-01-01', -5), ('m1', 'hour', '2024-01-01', -5), ('m1', null, '2024-01-01', 1), "
        "(null, 'day', '2024-01-01', 0)",
        "update staging.stg_meter_readings set consumption_kwh = consumption_kwh + 0.5 where reading_id = 2",
        "update marts.mart_anomaly_scores set anomaly_score = 1.01 where reading_id in (11, 12)",
        "update marts.mart_anomaly_scores set anomaly_score = null where reading_id in (21, 22, 23)",
        "update marts.mart_anomaly_scores set is_anomaly = null where reading_id = 33",
        "update marts.mart_anomaly_scores set anomaly_type = 'high_consumption' where reading_id in (41, 42)",
        "update marts.mart_anomaly_scores set anomaly_type = null where reading_id = 100",
        "update marts.mart_anomaly_scores set anomaly_type = 'theft' where reading_id = 200",
        "delete from marts.mart_anomaly_scores where reading_id = 55",
    )
    with pytest.raises(DataQualityError) as raised:
        validate_marts(context)

    suite, scores = "marts_metrics_suite", "marts_scores_suite"
    assert failed_rules(fleet, context) == {
        f"{suite}: meter_id is never empty": ("critical", 1),
        f"{suite}: period_type is never empty": ("critical", 1),
        f"{suite}: periods are day, week or month": ("critical", 2),
        f"{suite}: one row for each meter and period": ("critical", 1),
        f"{suite}: load factor lies between 0 and 1": ("critical", DAYS),
        f"{suite}: no period has negative consumption": ("warning", 2),
        f"{suite}: peak is at least the average": ("critical", 5),
        f"{suite}: days sum to their week": ("critical", 3),  # two changed, and the day that has no meter
        f"{suite}: days sum to their month": ("critical", 2),  # the deleted month, and the day that has no meter
        f"{suite}: the mart's total is staging's total": ("critical", 2),  # one meter, and the day that has none
        f"{scores}: anomaly_score is never empty": ("critical", 3),
        f"{scores}: is_anomaly is never empty": ("critical", 1),
        f"{scores}: anomaly scores lie between 0 and 1": ("critical", 2),
        f"{scores}: an anomaly has a type, and only an anomaly": ("critical", 4),
        f"{scores}: {LATEST}": ("critical", 1),
    }
    total = examples_of(fleet, context, f"{suite}: the mart's total is staging's total")
    (of_meter,) = (example for example in total if example["meter_id"] == "m2")
    assert of_meter["staging_kwh"] - of_meter["mart_kwh"] == pytest.approx(0.5)
    missing = examples_of(fleet, context, f"{scores}: {LATEST}")
    (lost,) = (example for example in missing if example["reading_id"] == 55)
    assert lost["anomaly_score"] is not None
    assert lost["score_in_mart"] is None
    assert "14 critical rules of 21" in raised.value.problem


def test_scores_of_an_earlier_run_in_the_mart_are_found(fleet: psycopg.Connection, make_context: MakeContext) -> None:
    context = make_context()
    plant(fleet, "update ml.reading_scores set is_anomaly = not is_anomaly")
    with pytest.raises(DataQualityError, match="with its latest score"):
        validate_marts(context)
    assert len(failed_rules(fleet, context)) == 1


def test_empty_tables_and_lost_columns_are_found(fleet: psycopg.Connection, make_context: MakeContext) -> None:
    plant(fleet, "delete from raw_data.meter_readings")
    fleet.execute("alter table staging.stg_meter_readings drop column voltage_v")
    context = make_context()
    with pytest.raises(DataQualityError) as raised:
        validate_staging(context)
    assert failed_rules(fleet, context) == {
        "raw_readings_suite: the raw table is not empty": ("critical", None),
        "staging_readings_suite: all columns are there": ("critical", None),
        "staging_readings_suite: voltage is plausible": ("warning", None),
    }
    assert "missing_column voltage_v" in raised.value.problem


def test_a_table_that_is_not_there_is_named(fleet: psycopg.Connection, make_context: MakeContext) -> None:
    fleet.execute("drop table marts.mart_anomaly_scores")
    with pytest.raises(UsageError, match=r"no table marts\.mart_anomaly_scores") as raised:
        validate_marts(make_context())
    assert "energy-iot score" in raised.value.fix


def test_settings_are_the_thresholds(fleet: psycopg.Connection, make_context: MakeContext) -> None:
    plant(
        fleet,
        "update raw_data.meter_readings set electricity_consumed = null where id = 1",
        "update intermediate.int_readings_daily set completeness = 0.95",
    )
    context = make_context()
    assert validate_staging(context).warnings == ()

    context = make_context(
        max_consumption_kwh=0.25,
        max_temperature_c=20,
        max_voltage_v=220,
        max_null_share=0,
        min_completeness=0.99,
    )
    with pytest.raises(DataQualityError):
        validate_staging(context)
    assert {rule.split(": ")[1] for rule in failed_rules(fleet, context)} == {
        "few readings come without consumption",
        "consumption is plausible in almost all readings",
        "consumption is plausible in every reading",
        "temperature is plausible",
        "voltage is plausible",
        "days are complete",
    }
    context = make_context(min_temperature_c=30, min_voltage_v=240)
    with pytest.raises(DataQualityError):
        validate_staging(context)
    assert {rule.split(": ")[1] for rule in failed_rules(fleet, context)} == {
        "temperature is plausible",
        "voltage is plausible",
    }


def test_a_step_run_again_replaces_its_results(fleet: psycopg.Connection, make_context: MakeContext) -> None:
    context = make_context()
    for _ in range(2):
        validate_staging(context)
    stored = fleet.execute("select count(*), count(distinct validated_at) from quality.validation_results").fetchone()
    assert stored == (23, 1)


def test_data_docs_link_suites_and_results_and_hold_no_address(
    fleet: psycopg.Connection, make_context: MakeContext
) -> None:
    context = make_context()
    plant(fleet, "update staging.stg_meter_readings set temperature_c = 140")
    with pytest.raises(DataQualityError):
        validate_staging(context)

    folder = docs_dir(context.settings)
    index = (folder / "index.html").read_text()
    for suite in STAGING_GATE.suites + MARTS_GATE.suites:
        assert f"expectations/{suite}.html" in index
        assert (folder / "expectations" / f"{suite}.html").is_file()
    page = next((folder / "validations" / "staging_readings_suite" / context.run_id).rglob("*.html"))
    assert page.relative_to(folder).as_posix() in index
    rules = (folder / "expectations" / "staging_readings_suite.html").read_text()
    assert "1 % may be off" in rules, "the reason of a lenient rule is shown"
    plain = index[index.index('<section id="plain-index"') :]  # links that need no script from the internet
    assert f'<a href="validations/staging_readings_suite/{context.run_id}/' in plain
    assert plain.count("all rules hold") == len(STAGING_GATE.suites) - 1
    assert plain.count("some rules fail") == 1

    address = context.settings.postgres_dsn
    assert address is not None
    secrets = [psycopg.conninfo.conninfo_to_dict(address.get_secret_value())[part] for part in ("host", "dbname")]
    written = [path for path in context.settings.home.rglob("*") if path.suffix in {".html", ".json", ".yml"}]
    assert written
    for path in written:
        text = path.read_text()
        assert not any(str(secret) in text for secret in secrets), path

    (folder / "index.html").unlink()
    assert build_data_docs(context.settings) == folder / "index.html"
    assert page.relative_to(folder).as_posix() in (folder / "index.html").read_text()


def test_the_context_lists_its_rules_without_a_database(make_context: MakeContext) -> None:
    settings = make_context().settings
    lines = describe_context(settings).splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")] == [
        *STAGING_GATE.suites,
        *MARTS_GATE.suites,
    ]
    assert "  critical  one reading for each meter and instant" in lines
    assert len([line for line in lines if line.startswith("  ")]) == RULES
    assert not validations_dir(settings).exists()


def test_great_expectations_works_in_our_session_and_knows_no_address(postgres: Postgres, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "a home, $with %signs")
    with postgres.connect(autocommit=True) as connection:
        connection.execute("set statement_timeout = 54321")
        with open_context(settings, connection) as context:
            datasource = context.data_sources.get("postgres")
            for engine in (datasource.get_engine(), datasource.get_execution_engine().engine):
                with engine.connect() as handed_over:
                    assert handed_over.exec_driver_sql("show statement_timeout").scalar() == "54321ms"
            context.checkpoints.get("energy_checkpoint").save()
            folder = Path(context.root_directory)
            texts = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert texts
    assert not any(str(postgres.parameters["host"]) in text or "54321" in text for text in texts)
    assert not folder.exists()
    assert build_data_docs(settings).is_file()


def test_old_results_and_their_pages_are_removed(make_context: MakeContext) -> None:
    settings = make_context().settings
    for number in range(5):
        for folder in (validations_dir(settings), docs_dir(settings) / "validations"):
            run = folder / "raw_readings_suite" / f"2024010{number}T000000-x" / "20240101T000000.000000Z"
            run.mkdir(parents=True)
    (validations_dir(settings) / "marts_metrics_suite" / "20240101T000000-x").mkdir(parents=True)
    forget_old_runs(settings, keep=2)
    kept = ["20240103T000000-x", "20240104T000000-x"]
    for folder in (validations_dir(settings), docs_dir(settings) / "validations"):
        assert sorted(run.name for run in (folder / "raw_readings_suite").iterdir()) == kept
    assert len(list((validations_dir(settings) / "marts_metrics_suite").iterdir())) == 1
