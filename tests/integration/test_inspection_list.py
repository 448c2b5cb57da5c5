"""From readings to suspects on real engines: a small fleet with thieves, with its registry and without."""

import csv
import json
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from energy_iot.errors import UsageError
from energy_iot.ml.explain import read_explanation, to_text
from energy_iot.ml.rank import COLUMNS, explanations, read_ranking, to_csv, to_json
from energy_iot.pipeline import ALL_STEPS, RunOptions, RunSummary, run_steps
from energy_iot.reporting.explain_page import render_explanation, write_explanation
from energy_iot.reporting.summary import suspects_table
from energy_iot.reporting.terminal import make_console
from energy_iot.settings import Settings
from energy_iot.simulation.fleet import FleetFiles, generate
from energy_iot.simulation.theft import TheftKind
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import Postgres, open_postgres
from tests.chromium import CHROMIUM, NO_CHROMIUM, assert_fits, opened, running_chromium
from tests.conftest import new_database

# without the gates: they change nothing, and cost seconds of rendering
STEPS = tuple(name for name in ALL_STEPS if not name.startswith("ge_"))
KINDS = frozenset(
    {
        TheftKind.CONSTANT_UNDER_REGISTRATION,
        TheftKind.BYPASS_PERIOD,
        TheftKind.AVERAGE_SUBSTITUTION,
        TheftKind.PEAK_HIDING,
        TheftKind.SLOW_DECLINE,
    }
)
METERS, DAYS = 64, 77
CHARTS = ["days", "profile", "transformer"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> FleetFiles:
    return generate(
        tmp_path_factory.mktemp("fleet"),
        meters=METERS,
        days=DAYS,
        seed=5,
        interval_minutes=60,
        theft_share=0.15,
        theft_kinds=KINDS,
        taps_share=0.0,
    )


@pytest.fixture(scope="module")
def thieves(fleet: FleetFiles) -> set[str]:
    truth = pl.read_csv(fleet.truth, infer_schema=False)
    found = set(truth.filter((pl.col("is_theft") == "true") & (pl.col("subject_type") == "meter"))["subject_id"])
    assert len(found) >= 5
    return found


@pytest.fixture(scope="module")
def home(
    postgres_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory, fleet: FleetFiles
) -> Iterator[tuple[Settings, RunSummary]]:
    """A home in which the whole fleet was run."""
    files = (fleet.readings, fleet.meters, fleet.network_nodes, fleet.network_readings, fleet.outages)
    with new_database(postgres_server) as dsn:
        settings = Settings(home=tmp_path_factory.mktemp("home"), postgres_dsn=dsn, random_seed=5)
        yield settings, run_steps(settings, RunOptions(files=files), STEPS)


@pytest.fixture
def ranked(home: tuple[Settings, RunSummary]) -> Iterator[Postgres]:
    with open_postgres(home[0]) as postgres:
        yield postgres


def rows(postgres: Postgres, query: str) -> list[tuple[object, ...]]:
    with postgres.connect() as connection:
        return connection.execute(query.encode()).fetchall()


def test_thieves_are_on_top(ranked: Postgres, thieves: set[str]) -> None:
    suspects = read_ranking(ranked)
    assert [suspect.suspicion_rank for suspect in suspects] == list(range(1, len(suspects) + 1))
    truth = [suspect.meter_id in thieves for suspect in suspects]
    assert roc_auc_score(truth, [suspect.suspicion_score for suspect in suspects]) > 0.9
    assert all(truth[:3])
    first = suspects[0]
    assert first.reasons
    assert first.lost_kwh is not None
    assert first.lost_kwh > 0
    assert first.currency == "XOF"
    assert first.transformer_unexplained_share is not None


def test_every_meter_of_the_last_weeks_is_ranked_once(ranked: Postgres) -> None:
    counts = rows(
        ranked,
        "select (select count(distinct meter_id) from intermediate.int_meter_days), count(*), "
        "count(distinct meter_id), (select count(*) from ml.meter_suspicions) from marts.mart_inspection_list",
    )
    assert len(set(counts[0])) == 1
    assert counts[0][0] >= METERS


def test_a_replaced_meter_goes_on_in_the_one_that_took_its_place(ranked: Postgres, fleet: FleetFiles) -> None:
    registry = pl.read_csv(fleet.meters, infer_schema=False).filter(pl.col("valid_to").is_not_null())
    replaced = registry["meter_id"].to_list()
    assert replaced, "another seed has replaced meters"
    found = rows(
        ranked,
        "select meter_id, suppressed_cause, suspicion_score from marts.mart_inspection_list "
        "where meter_id in (select meter_id from intermediate.int_registered_meters where replaced_by is not null)",
    )
    assert {row[0] for row in found} == set(replaced)
    assert {row[2] for row in found} == {0.0}
    days = rows(
        ranked,
        "select min(levels.reading_date) < meters.replacement_date "
        "from intermediate.int_meter_levels as levels inner join intermediate.int_registered_meters as meters "
        "on levels.meter_id = meters.meter_id where meters.replacement_date is not null "
        "group by levels.meter_id, meters.replacement_date",
    )
    assert set(days) == {(True,)}


def test_counts_of_strange_readings_are_those_of_the_scores(ranked: Postgres) -> None:
    differing = rows(
        ranked,
        "select * from ml.score_days full outer join ("
        "select meter_id, cast(reading_timestamp as date) as reading_date, count(*) as readings, "
        "count(*) filter (where is_anomaly) as anomalies from ml.reading_scores group by 1, 2) "
        "as counted using (meter_id, reading_date) "
        "where reading_count is distinct from readings or anomaly_count is distinct from anomalies",
    )
    assert differing == []
    assert rows(ranked, "select count(*) > 0 from ml.score_days where anomaly_count > 0") == [(True,)]


def test_the_list_is_published(home: tuple[Settings, RunSummary], ranked: Postgres) -> None:
    with open_clickhouse(home[0]) as clickhouse:
        query = "select meter_id, suspicion_rank, reasons from inspection_list order by suspicion_rank"
        assert list(clickhouse.query(query).result_rows) == rows(
            ranked, "select meter_id, suspicion_rank, reasons from marts.mart_inspection_list order by suspicion_rank"
        )


def test_nothing_new_is_nothing_to_do(home: tuple[Settings, RunSummary]) -> None:
    again = run_steps(home[0], RunOptions(), ("ml_score", "dbt_run_marts", "sync_to_clickhouse"))
    assert [step.status for step in again.steps] == ["skipped"] * 3
    figures = next(step.report.details["meters"] for step in home[1].steps if step.step == "ml_score")
    assert figures["meters"] >= METERS
    assert 0 < figures["suspects"] < METERS / 3


def test_judging_again_gives_the_same(home: tuple[Settings, RunSummary], ranked: Postgres) -> None:
    query = "select meter_id, suspicion_score, confidence, reasons, lost_kwh from ml.meter_suspicions order by meter_id"
    before = rows(ranked, query)
    run_steps(home[0], RunOptions(full_refresh=True), ("ml_score",))
    assert rows(ranked, query) == before


def test_the_list_as_csv_and_json(ranked: Postgres) -> None:
    suspects = read_ranking(ranked)[:5]
    text = to_csv(suspects)
    assert text.startswith("meter_id,score,rank,")
    parsed = list(csv.DictReader(StringIO(text)))
    assert [row["meter_id"] for row in parsed] == [suspect.meter_id for suspect in suspects]
    assert [float(row["score"]) for row in parsed] == [suspect.suspicion_score for suspect in suspects]
    assert [set(row) for row in json.loads(to_json(suspects))] == [set(COLUMNS)] * 5


def test_the_list_as_a_table(ranked: Postgres) -> None:
    console = make_console()
    with console.capture() as captured:
        console.print(suspects_table(read_ranking(ranked)[:2], total=METERS))
    shown = captured.get()
    assert f"2 of {METERS} meters" in shown
    assert "kWh" in shown


def test_a_meter_is_explained(home: tuple[Settings, RunSummary], ranked: Postgres, tmp_path: Path) -> None:
    suspect = read_ranking(ranked)[0]
    explanation = read_explanation(ranked, suspect.meter_id)
    text = to_text(explanation)
    for reason in explanations(suspect):
        assert reason in text
    assert f"transformer {suspect.transformer_id}" in text
    assert explanation.days
    assert explanation.node_days
    expected = [value for value in explanation.expected_kwh() if value is not None]
    assert len(expected) == len(explanation.days)

    page = write_explanation(home[0], explanation, tmp_path / "meter.html").read_text()
    specs = re.findall(r'<script type="application/json">(.*?)</script>', page)
    assert len(specs) == 3
    assert all(json.loads(spec)["$schema"] for spec in specs)
    assert not re.search(r'(?:src|href)="https?:', page)
    assert write_explanation(home[0], explanation, None).parent == home[0].reports_dir


@pytest.mark.heavy
@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
@pytest.mark.parametrize("width", [1366, 390])
def test_its_page_in_a_browser(home: tuple[Settings, RunSummary], ranked: Postgres, tmp_path: Path, width: int) -> None:
    explanation = read_explanation(ranked, read_ranking(ranked)[0].meter_id)
    path = write_explanation(home[0], explanation, tmp_path / "meter.html")
    with running_chromium() as browser, opened(browser, path, viewport={"width": width, "height": 768}) as (page, seen):
        assert seen.messages == []
        assert seen.requests == [path.as_uri()]
        assert [box.get_attribute("id") for box in page.query_selector_all(".chart[data-drawn=yes]")] == CHARTS
        assert_fits(page)


def test_an_unknown_meter_is_told_with_similar_names(ranked: Postgres) -> None:
    with pytest.raises(UsageError, match="no meter m000001 on the inspection list") as raised:
        read_explanation(ranked, "m000001")
    assert "M000001" in raised.value.fix


def test_no_list_yet(postgres: Postgres) -> None:
    with pytest.raises(UsageError, match="there is no inspection list yet"):
        read_ranking(postgres)
    with postgres.connect() as connection:
        connection.execute("create table marts.mart_inspection_list (meter_id text)")
    with pytest.raises(UsageError, match="the inspection list is empty"):
        read_ranking(postgres)


@pytest.mark.heavy
def test_readings_alone_are_enough(settings: Settings, fleet: FleetFiles, thieves: set[str]) -> None:
    run_steps(settings, RunOptions(files=(fleet.readings,)), STEPS)
    with open_postgres(settings) as postgres:
        suspects = read_ranking(postgres)
        truth = [suspect.meter_id in thieves for suspect in suspects]
        assert roc_auc_score(truth, [suspect.suspicion_score for suspect in suspects]) > 0.85
        known = {(suspect.transformer_id, suspect.lost_value, suspect.customer_class) for suspect in suspects}
        assert known == {(None, None, None)}
        page = render_explanation(read_explanation(postgres, suspects[0].meter_id), bundle="")
    assert "No balance is known" in page


def test_too_few_days_are_listed_and_suspect_nobody(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    lines = [f"m{meter},2025-01-01 {hour:02d}:00:00,{0.1 * meter + 0.2}" for meter in range(3) for hour in range(24)]
    path.write_text("meter_id,timestamp,consumption_kwh\n" + "\n".join(lines) + "\n")
    run_steps(settings, RunOptions(files=(path,)), STEPS)
    with open_postgres(settings) as postgres:
        suspects = read_ranking(postgres)
        assert {suspect.meter_id for suspect in suspects} == {"m0", "m1", "m2"}
        assert {suspect.suspicion_score for suspect in suspects} == {0.0}
        assert "too little data" in to_text(read_explanation(postgres, "m1"))
