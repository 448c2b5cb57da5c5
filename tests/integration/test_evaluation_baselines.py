"""The simple rankings and the list of losses, read from real tables."""

from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from psycopg import Connection
from sklearn.ensemble import IsolationForest

from energy_iot.ml.evaluation import baselines
from energy_iot.ml.evaluation.baselines import (
    BASELINES,
    RECIPE_COLUMNS,
    biggest_drop,
    read_days,
    seeds_recipe,
    strange_share,
)
from energy_iot.ml.evaluation.network import TransformerMonth, read_transformers
from energy_iot.ml.evaluation.truth import Tap
from energy_iot.storage.postgres import Postgres

FEATURE_TABLE = """
    create table intermediate.int_consumption_features (
        reading_id bigint, meter_id text, reading_timestamp timestamp, consumption_kwh double precision,
        avg_consumption_1h double precision, avg_consumption_24h double precision,
        std_consumption_24h double precision, consumption_vs_avg_ratio double precision,
        hour_of_day integer, day_of_week integer, is_weekend boolean
    )
"""


def store(connection: Connection, table: str, frame: pl.DataFrame) -> None:
    with connection.cursor().copy(f"copy {table} ({', '.join(frame.columns)}) from stdin (format csv)") as copy:
        copy.write(frame.write_csv(include_header=False))


@pytest.fixture
def features(postgres: Postgres) -> pl.DataFrame:
    """Readings of four meters; the first has a few that are far off."""
    random = np.random.default_rng(0)
    count = 4 * 480
    times = [datetime(2025, 1, 6) + timedelta(minutes=30 * (place % 480)) for place in range(count)]
    consumption = random.lognormal(-1, 0.5, count)
    consumption[:5] = 40.0
    frame = pl.DataFrame(
        {
            "reading_id": np.arange(count),
            "meter_id": np.repeat(["m1", "m2", "m3", "m4"], 480),
            "reading_timestamp": times,
            "consumption_kwh": consumption,
            "avg_consumption_1h": pl.Series(consumption).rolling_mean(2, min_samples=1),
            "avg_consumption_24h": pl.Series(consumption).rolling_mean(48, min_samples=1),
            "std_consumption_24h": pl.Series(consumption).rolling_std(48, min_samples=2),  # the first is null
            "hour_of_day": [time.hour for time in times],
            "day_of_week": [time.isoweekday() % 7 for time in times],
            "is_weekend": [time.isoweekday() > 5 for time in times],
        }
    ).with_columns(consumption_vs_avg_ratio=pl.col("consumption_kwh") / pl.col("avg_consumption_24h"))
    with postgres.connect() as connection:
        connection.execute(FEATURE_TABLE)
        store(connection, "intermediate.int_consumption_features", frame)
    return frame


def test_the_recipe_ranks_by_the_strangest_readings(postgres: Postgres, features: pl.DataFrame) -> None:
    scores = seeds_recipe(postgres)
    assert sorted(scores) == ["m1", "m2", "m3", "m4"]
    assert max(scores, key=lambda meter: scores[meter]) == "m1"
    assert seeds_recipe(postgres) == scores
    # the same forest on the readings in the order of the sample, and on its own
    forest = IsolationForest(n_estimators=100, max_samples=256, random_state=42)
    columns = [pl.col(name).cast(pl.Float32).fill_null(0) for name in RECIPE_COLUMNS]
    own = forest.fit(features.sample(fraction=1, shuffle=True, seed=0).select(columns).to_numpy())
    strangeness = -own.score_samples(features.select(columns).to_numpy())
    for meter in scores:
        strangest = np.sort(strangeness[(features["meter_id"] == meter).to_numpy()])[-5:]  # 1 % of 480
        assert scores[meter] == pytest.approx(strangest.mean(), abs=0.03)


def test_readings_in_small_batches_score_the_same(
    postgres: Postgres, features: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = seeds_recipe(postgres)
    monkeypatch.setattr(baselines, "BATCH_READINGS", 333)
    assert seeds_recipe(postgres) == whole


def test_share_of_strange_readings(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        connection.execute("create table marts.mart_anomaly_scores (meter_id text, is_anomaly boolean)")
        connection.execute(
            "insert into marts.mart_anomaly_scores select 'a', number <= 3 from generate_series(1, 12) as number "
            "union all select 'b', false from generate_series(1, 5)"
        )
    assert strange_share(postgres) == {"a": 0.25, "b": 0.0}


def test_days_are_whole_or_put_on_24_hours(postgres: Postgres) -> None:
    first = date(2025, 1, 6)
    days = [first + timedelta(days=day) for day in range(51)]
    with postgres.connect() as connection:
        connection.execute(
            "create table intermediate.int_readings_daily (meter_id text, reading_date date, "
            "daily_consumption_kwh double precision, covered_hours double precision, completeness double precision)"
        )
        rows = pl.DataFrame(
            {
                "meter_id": "m1",
                "reading_date": days,
                "daily_consumption_kwh": [10.0] * 36 + [4.0] * 15,
                "covered_hours": [24.0] * 50 + [6.0],
                "completeness": [1.0] * 50 + [0.25],
            }
        )
        rows[40, "covered_hours"], rows[40, "completeness"], rows[40, "daily_consumption_kwh"] = 12.0, 0.5, 2.0
        store(connection, "intermediate.int_readings_daily", rows)
    read = read_days(postgres)
    assert read.height == 50  # the last day is left out, the half one put on a whole one
    assert set(read["daily_kwh"]) == {10.0, 4.0}
    assert biggest_drop(read) == {"m1": pytest.approx(0.6)}


def test_names_of_rankings_differ() -> None:
    assert len({baseline.name for baseline in BASELINES}) == len(BASELINES) == 5


def test_transformers_in_the_newest_whole_month(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        connection.execute("create table intermediate.int_energy_balance (node_type text, reading_date date)")
        connection.execute(
            "create table marts.mart_losses (node_id text, node_type text, month_start date, "
            "unexplained_share double precision, energy_in_kwh double precision)"
        )
    assert read_transformers(postgres, []) == []  # no registry
    with postgres.connect() as connection:
        connection.execute(
            "insert into intermediate.int_energy_balance select node_type, day::date "
            "from (values ('transformer'), ('feeder')) as nodes (node_type), "
            "generate_series(date '2025-01-06', date '2025-03-10', '1 day') as day"
        )
        connection.execute(
            "insert into marts.mart_losses values ('T1', 'transformer', '2025-02-01', 0.2, 1000), "
            "('T2', 'transformer', '2025-02-01', null, null), ('T1', 'transformer', '2025-03-01', 0.9, 1000), "
            "('F1', 'feeder', '2025-02-01', 0.5, 9000)"
        )
    taps = [Tap("T1", datetime(2025, 2, 15), None, 240.0)]  # to 10 March: 24 days, 14 of them in February
    assert read_transformers(postgres, taps) == [
        TransformerMonth("T1", 0.2, 1000.0, 140.0),
        TransformerMonth("T2", None, 0.0, 0.0),
    ]
