"""Training and scoring against a real PostgreSQL; the feature tables are made here, dbt has no part in it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
import psycopg
import pytest
import sklearn
from psycopg.types.json import Jsonb

from energy_iot.errors import ModelError
from energy_iot.ml import model_store, scoring
from energy_iot.ml.feature_days import make_habits, rebuild_feature_days
from energy_iot.ml.features import FEATURES, build_matrix
from energy_iot.ml.label_agreement import KAGGLE_CAVEAT, evaluate_labels
from energy_iot.ml.model_store import load_model
from energy_iot.ml.score_anomalies import score
from energy_iot.ml.train_anomaly_model import scores, train
from energy_iot.ml.utils import draw_sample, open_features, stream_features
from energy_iot.ml.versions import Card, read_versions
from energy_iot.pipeline import RunContext, RunOptions, StepReport, run_step
from energy_iot.reporting.progress import Advance, Progress
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres
from tests.feature_fleet import (
    BIG_STEADY_METER,
    DAYS,
    INTERVALS,
    METERS,
    READINGS,
    fleet,
    store_features,
    stored_scores,
)

MakeContext = Callable[..., RunContext]


def plant(frame: pl.DataFrame, readings: dict[int, tuple[float, float]]) -> pl.DataFrame:
    """Give these reading ids a ratio to their average and a z-score."""
    ids = pl.col("reading_id")
    return frame.with_columns(
        ids.replace_strict({key: ratio for key, (ratio, _) in readings.items()}, default=None, return_dtype=pl.Float64)
        .fill_null(pl.col("consumption_vs_avg_ratio"))
        .alias("consumption_vs_avg_ratio"),
        ids.replace_strict({key: z for key, (_, z) in readings.items()}, default=None, return_dtype=pl.Float64)
        .fill_null(pl.col("hour_of_week_z_score"))
        .alias("hour_of_week_z_score"),
    )


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Small forests: the tests are about what is done with them."""
    return settings.model_copy(update={"trees": 30})


@pytest.fixture
def features(postgres: Postgres) -> pl.DataFrame:
    """The fleet, stored."""
    frame = fleet()
    store_features(postgres, frame)
    return frame


def rescore(context: RunContext, what: str | None = None, *, full_refresh: bool = False) -> StepReport:
    """Score with an option of the command line."""
    return score(replace(context, options=RunOptions(rescore=what, full_refresh=full_refresh)))


def all_cards(postgres: Postgres) -> list[Card]:
    """The cards of all versions, newest first."""
    with postgres.connect() as connection:
        return [version.card for version in read_versions(connection)]


def forget_state(postgres: Postgres) -> None:
    """Make the next scoring do everything again."""
    execute(postgres, "delete from quality.derived_states")


def execute(postgres: Postgres, statement: str, *values: object) -> None:
    with postgres.connect() as connection:
        connection.execute(statement, values)


def rewrite_card(postgres: Postgres, settings: Settings, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the newest card on disk and in the database alike, as another program would have written it."""
    card = dict(all_cards(postgres)[0])
    change(card)
    path = settings.models_dir / f"isolation_forest_v{card['model_version']}.json"
    path.write_text(json.dumps(card))
    execute(
        postgres,
        "update ml.model_versions set card = %s, sha256 = %s where model_version = %s",
        Jsonb(card),
        card["sha256"],
        card["model_version"],
    )


# --- the features ----------------------------------------------------------------------------------------------------


@contextmanager
def prepared_features(postgres: Postgres, history_days: int = 56) -> Iterator[Any]:
    """A connection to the feature table with habits worked out; nothing of it stays."""
    with open_features(postgres) as connection:
        with connection.cursor() as cursor:
            rebuild_feature_days(cursor)
            make_habits(cursor, history_days=history_days)
        yield connection


def read_features(postgres: Postgres, history_days: int = 56) -> pl.DataFrame:
    with prepared_features(postgres, history_days) as connection:
        batches = list(stream_features(connection, FEATURES, batch_readings=1000))
    assert max(batch.num_rows for batch in batches) <= 1000
    return pl.DataFrame(pl.from_arrow(batches)).sort("reading_id")


LOOK_BACK = ("ratio_24h", "spread_24h", "level_24h")


@pytest.mark.parametrize("history_days", [7, 10, 56])
def test_features_equal_an_independent_computation(postgres: Postgres, history_days: int) -> None:
    random = np.random.default_rng(3)
    frame = (
        fleet()
        .with_columns(
            pl.when(pl.col("reading_id") % 50 > 0).then(pl.col("hour_of_week_z_score")).alias("hour_of_week_z_score"),
            pl.when(pl.col("reading_id") % 70 > 0)
            .then(pl.col("consumption_vs_avg_ratio"))
            .otherwise(0)
            .alias("consumption_vs_avg_ratio"),
            pl.when(pl.col("meter_id") == "meter_1")
            .then(pl.Series(random.uniform(0, 1, READINGS)))
            .alias("sub1_ratio"),
            pl.when(pl.col("reading_id") % 3 > 0).then(pl.Series(random.uniform(0, 3, READINGS))).alias("sub3_ratio"),
        )
        .filter((pl.col("meter_id") != "meter_2") | ~pl.col("reading_timestamp").dt.day().is_in([4, 5, 6]))
    )
    store_features(postgres, frame.sample(fraction=1, shuffle=True, seed=1))
    z_score, average = pl.col("hour_of_week_z_score"), pl.col("avg_consumption_24h")
    values = frame.select(
        "reading_id",
        "meter_id",
        pl.col("reading_timestamp").dt.date().alias("day"),
        pl.col("consumption_vs_avg_ratio").clip(0.05, 20).log().alias("ratio_24h"),
        (z_score.sign() * (1 + z_score.abs()).log()).alias("hour_of_week"),
        (pl.col("std_consumption_24h") / average).clip(0.05, 20).log().alias("spread_24h"),
        average.sqrt().alias("level_24h"),
        pl.when(pl.any_horizontal(pl.col("sub1_ratio", "sub3_ratio").is_not_null()))
        .then(pl.sum_horizontal("sub1_ratio", "sub3_ratio").clip(0, 2))
        .alias("submetered_share"),
        (pl.col("window_hours_24h") >= 18).alias("full"),
    ).with_columns(pl.when(pl.col("full")).then(pl.col(name)).alias(name) for name in LOOK_BACK)
    least = {"ratio_24h": 0.1, "spread_24h": 0.1, "submetered_share": 0.1}
    parts = []
    for (meter, day), of_day in values.group_by("meter_id", "day"):
        since = day - timedelta(days=history_days - 1)
        habit = values.filter((pl.col("meter_id") == meter) & pl.col("day").is_between(since, day))
        relative = []
        for name in (*LOOK_BACK, "submetered_share"):
            usual, spread = habit[name].mean(), habit[name].std(ddof=0)
            if usual is not None:
                spread = max(spread, least.get(name, 0.05 * usual))
                relative.append(((pl.col(name) - usual) / spread).alias(name))
        parts.append(of_day.with_columns(relative))
    expected = pl.concat(parts).sort("reading_id")
    found = read_features(postgres, history_days)
    assert found.columns == ["reading_id", "meter_id", "reading_timestamp", *(feature.name for feature in FEATURES)]
    assert found["reading_id"].equals(expected["reading_id"])
    for feature in FEATURES:
        assert 0 < found[feature.name].null_count() < len(expected)
        np.testing.assert_allclose(
            found[feature.name], expected[feature.name], rtol=1e-4, atol=1e-4, err_msg=feature.name
        )


def test_features_do_not_depend_on_the_size_of_a_customer(postgres: Postgres) -> None:
    small = fleet()
    store_features(postgres, small)
    first = read_features(postgres)
    kwh = ("consumption_kwh", "avg_consumption_1h", "avg_consumption_24h", "std_consumption_24h")
    store_features(postgres, small.with_columns(pl.col(name) * 1000 for name in kwh))
    second = read_features(postgres)
    for feature in FEATURES:
        np.testing.assert_allclose(second[feature.name], first[feature.name], rtol=1e-4, atol=1e-4)


def test_a_meter_that_never_varies_or_never_counts_is_as_usual(postgres: Postgres) -> None:
    """Nothing is divided by a spread of nothing."""
    flat = fleet().filter(pl.col("meter_id") == "meter_0")
    constant = flat.with_columns(
        pl.lit(0.5).alias("avg_consumption_24h"),
        pl.lit(0.0).alias("std_consumption_24h"),
        pl.lit(1.0).alias("consumption_vs_avg_ratio"),
    )
    silent = flat.with_columns(
        pl.lit("meter_9").alias("meter_id"),
        pl.col("reading_id") + 50_000,
        pl.lit(0.0).alias("avg_consumption_24h"),
        pl.lit(0.0).alias("std_consumption_24h"),
        pl.lit(None, pl.Float64).alias("consumption_vs_avg_ratio"),
    )
    store_features(postgres, pl.concat([constant, silent]))
    found = read_features(postgres)
    of_constant, of_silent = found.filter(pl.col("reading_id") < 50_000), found.filter(pl.col("reading_id") > 50_000)
    for name in LOOK_BACK:
        assert of_constant[name].null_count() == 36  # the first 18 hours
        assert (of_constant[name].drop_nulls() == 0).all()
        assert of_silent[name].is_null().all()


def test_a_meter_that_hardly_varies_is_not_odd_for_little(postgres: Postgres) -> None:
    steady = fleet().with_columns(
        pl.when(pl.col("reading_id") == 99).then(1.05).otherwise(1.0).alias("consumption_vs_avg_ratio")
    )
    store_features(postgres, steady)
    found = read_features(postgres).filter(pl.col("reading_id") == 99)
    assert found["ratio_24h"].item() == pytest.approx(np.log(1.05) / 0.1, abs=0.01)


@pytest.mark.parametrize("first", ["2024-01-01", "2024-01-05"], ids=["of a meter", "after an outage"])
def test_the_first_hours_have_no_day_to_compare_with(postgres: Postgres, first: str) -> None:
    """Over less than most of a day, a morning would be compared with a night."""
    hours = pl.col("reading_timestamp") - datetime.fromisoformat(first)
    silent = pl.col("reading_timestamp").dt.day().is_in([2, 3, 4])
    frame = (
        fleet()
        .filter(~silent)
        .with_columns(
            pl.when(hours.dt.total_days() >= 0)
            .then(pl.min_horizontal(hours.dt.total_minutes() / 60, 23.5))
            .otherwise(23.5)
            .alias("window_hours_24h")
        )
    )
    store_features(postgres, frame)
    found = read_features(postgres).filter(pl.col("reading_timestamp") >= datetime.fromisoformat(first))
    for name in LOOK_BACK:
        without = found.filter(pl.col(name).is_null())["reading_timestamp"].unique().sort()
        assert without.to_list() == [datetime.fromisoformat(first) + timedelta(minutes=30 * i) for i in range(36)]


def test_readings_later_than_a_day_do_not_change_what_is_seen_of_it(postgres: Postgres) -> None:
    store_features(postgres, fleet())
    whole = read_features(postgres)
    until = datetime(2024, 1, 6)
    store_features(postgres, fleet().filter(pl.col("reading_timestamp") < until))
    cut = read_features(postgres)
    assert len(cut) == METERS * 5 * INTERVALS
    assert cut.equals(whole.filter(pl.col("reading_timestamp") < until))


@pytest.mark.parametrize(
    "frame",
    [
        fleet().filter(pl.col("reading_timestamp") < datetime(2024, 1, 1, 10)),
        fleet().with_columns(
            pl.lit(0.0).alias("avg_consumption_24h"),
            pl.lit(0.0).alias("std_consumption_24h"),
            pl.lit(None, pl.Float64).alias("consumption_vs_avg_ratio"),
            pl.lit(None, pl.Float64).alias("hour_of_week_z_score"),
        ),
        fleet().head(1),
    ],
    ids=["ten hours", "all zero", "one reading"],
)
def test_where_nothing_can_be_compared_all_readings_are_ordinary(
    postgres: Postgres, make_context: MakeContext, frame: pl.DataFrame
) -> None:
    store_features(postgres, frame.with_columns(pl.lit(None, pl.Float64).alias("hour_of_week_z_score")))
    report = score(make_context())
    assert any("nothing to compare readings with yet" in warning for warning in report.warnings)
    found = stored_scores(postgres)
    assert len(found) == len(frame)
    assert all(value == pytest.approx(0.5) and not is_anomaly for value, is_anomaly, _ in found.values())
    assert not rescore(make_context(), full_refresh=True).details["trained"]
    store_features(postgres, fleet())
    report = score(make_context())
    assert report.details["model_version"] == 2
    assert "nothing to compare readings with when model v1 was trained" in report.details["training_reason"]


def test_shops_that_close_at_night_are_not_odd_at_night(postgres: Postgres, make_context: MakeContext) -> None:
    """Little of the average each night is this meter's habit; the same for one night in a household is not."""
    night, day = pl.col("reading_timestamp").dt.hour() < 6, pl.col("reading_timestamp").dt.day()
    shop = (pl.col("meter_id") == "meter_2") & night
    home = (pl.col("meter_id") == "meter_1") & night & (day == 9)
    frame = fleet().with_columns(
        pl.when(shop | home).then(0.08).otherwise(pl.col("consumption_vs_avg_ratio")).alias("consumption_vs_avg_ratio")
    )
    store_features(postgres, frame)
    score(make_context())
    found = stored_scores(postgres)
    in_shop, at_home = (
        np.array([found[key][0] for key in frame.filter(where)["reading_id"]]) for where in (shop, home)
    )
    assert len(in_shop) > len(at_home) > 0
    assert np.mean(in_shop > 0.6) < 0.05
    assert np.mean(at_home > 0.6) > 0.5
    assert at_home.mean() > in_shop.mean() + 0.05


# --- what a scoring does --------------------------------------------------------------------------------------------


def test_first_scoring_trains_and_scores_every_reading(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext
) -> None:
    run = run_step("ml_score", make_context())
    report = run.report
    assert (report.rows_in, report.rows_out) == (READINGS, READINGS)
    assert report.details["trained"] is True
    assert report.details["training_reason"] == "there is none yet"
    assert report.details["model_version"] == 1
    assert report.details["training_rows"] == READINGS
    assert report.details["threshold"] == 0.6
    found = stored_scores(postgres)
    assert set(found) == set(features["reading_id"])
    assert all(0 < value <= 1 for value, _, _ in found.values())
    assert all(is_anomaly == (value > 0.6) for value, is_anomaly, _ in found.values())
    anomalies = sum(is_anomaly for _, is_anomaly, _ in found.values())
    assert report.details["mode"] == "whole"
    scored_now = report.details["scored_now"]
    assert scored_now["readings"] == READINGS
    assert 0 < anomalies == scored_now["anomalies"]
    assert scored_now["anomaly_share"] == pytest.approx(anomalies / READINGS)
    exact = np.quantile([value for value, _, _ in found.values()], 0.99)
    assert scored_now["quantiles"]["0.99"] == pytest.approx(exact, abs=2e-3)
    assert scored_now["drift"] == pytest.approx(0, abs=0.02)  # of the readings that it was trained on
    with postgres.connect() as connection:
        counted = connection.execute(
            "select sum(reading_count)::int, sum(anomaly_count)::int from ml.score_days "
            "where reading_date > (select max(reading_date) from ml.score_days) - 30"
        ).fetchone()
    assert counted is not None
    assert report.details["latest"] == {"days": 30, "readings": counted[0], "anomalies": counted[1]}
    assert "agreement" not in report.details


def test_scoring_again_has_nothing_to_do_and_a_full_refresh_gives_the_same(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext
) -> None:
    score(make_context())
    first = stored_scores(postgres)
    assert score(make_context()).skipped == "up to date"
    again = rescore(make_context(), full_refresh=True)
    assert (again.rows_out, again.details["mode"], again.details["trained"]) == (READINGS, "whole", False)
    assert stored_scores(postgres) == first


def test_nothing_to_do_is_told_without_loading_what_takes_seconds(
    settings: Settings, features: pl.DataFrame, make_context: MakeContext
) -> None:
    score(make_context())
    context = make_context()
    program = (
        "import sys; from energy_iot.ml.score_anomalies import score; from energy_iot.pipeline import RunContext; "
        "from energy_iot.settings import Settings; from pathlib import Path; "
        "settings = Settings(home=Path(sys.argv[1]), postgres_dsn=sys.argv[2], trees=30); "
        "print(score(RunContext(settings, sys.argv[3])).skipped, 'sklearn' in sys.modules)"
    )
    assert settings.postgres_dsn is not None
    arguments = [str(settings.home), settings.postgres_dsn.get_secret_value(), context.run_id]
    told = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert told.stdout.split("\n")[0] == "up to date False"


def test_the_run_says_which_version_is_in_force(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext
) -> None:
    contexts = [make_context(), make_context()]
    for context in contexts:
        score(context)
    with postgres.connect() as connection:
        assert connection.execute("select run_id, model_version from quality.pipeline_runs order by 1").fetchall() == [
            (context.run_id, 1) for context in sorted(contexts, key=lambda context: context.run_id)
        ]


def test_training_is_deterministic_whatever_the_order_and_ids_on_disk(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext
) -> None:
    context = make_context(training_rows=1000)  # a third: the choice of the sample matters
    assert score(context).details["training_rows"] < READINGS
    first = stored_scores(postgres)
    shuffled = features.sample(fraction=1, shuffle=True, seed=3).with_columns(pl.col("reading_id") + 10_000)
    store_features(postgres, shuffled)
    assert train(context).details["model_version"] == 2
    assert rescore(context, "all").details["model_version"] == 2
    second = stored_scores(postgres)
    assert {key - 10_000: value for key, (value, _, _) in second.items()} == {
        key: value for key, (value, _, _) in first.items()
    }


def test_another_seed_draws_other_readings(postgres: Postgres, features: pl.DataFrame) -> None:
    def drawn(seed: int) -> list[int]:
        with prepared_features(postgres) as connection, connection.cursor() as cursor:
            sample = draw_sample(cursor, 1000, population=READINGS, seed=seed)
        assert 800 < sample.table.num_rows <= 1000
        assert sample.meters == METERS
        return list(sample.table["reading_id"].to_pylist())

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_planted_faults_are_the_strangest_readings(postgres: Postgres, make_context: MakeContext) -> None:
    planted = {
        number * DAYS * INTERVALS + 100 + 31 * number: (12.0, 8.0) if number % 2 else (0.0, -4.0)
        for number in range(METERS)
    }
    store_features(postgres, plant(fleet(), planted))
    score(make_context())
    found = stored_scores(postgres)
    strangest = sorted(found, key=lambda key: -found[key][0])[: READINGS // 100]
    assert planted.keys() <= set(strangest)
    assert all(found[key][1] for key in planted)


def test_a_big_steady_customer_is_not_odd(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext
) -> None:
    score(make_context())
    found = stored_scores(postgres)
    big = features.filter(pl.col("meter_id") == BIG_STEADY_METER)
    assert (
        big["consumption_kwh"].min() > features.filter(pl.col("meter_id") != BIG_STEADY_METER)["consumption_kwh"].max()
    )
    share = np.mean([found[key][1] for key in big["reading_id"]])
    assert share < 3 * np.mean([is_anomaly for _, is_anomaly, _ in found.values()])
    assert np.median([found[key][0] for key in big["reading_id"]]) < 0.5


class Watcher(Progress):
    """Calls a function with each amount scored."""

    def __init__(self, watch: Callable[[int], object]) -> None:
        self._watch = watch

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
        yield self._watch if description == "scoring readings" else lambda amount: None


def watched(context: RunContext, watch: Callable[[int], object]) -> RunContext:
    return replace(context, progress=Watcher(watch))


def test_progress_tells_of_every_reading(
    features: pl.DataFrame, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    monkeypatch.setattr(scoring, "BATCH_READINGS", 1000)
    advanced: list[int] = []
    score(watched(make_context(), advanced.append))
    assert sum(advanced) == READINGS
    assert max(advanced) <= 1000
    assert len(advanced) >= READINGS // 1000


# --- all or nothing -------------------------------------------------------------------------------------------------


def test_readers_see_the_old_scores_until_all_new_ones_are_there(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(make_context())
    execute(postgres, "delete from ml.reading_scores where reading_id > 5")
    monkeypatch.setattr(scoring, "BATCH_READINGS", 500)
    seen = []

    def look(amount: int) -> None:
        with psycopg.connect(postgres.conninfo, options="-c lock_timeout=2000") as reader:
            row = reader.execute("select count(*) from ml.reading_scores").fetchone()
        assert row is not None
        seen.append(row[0])

    rescore(watched(make_context(), look), full_refresh=True)
    assert len(seen) > 3
    assert set(seen) == {5}
    assert len(stored_scores(postgres)) == READINGS


# --- threshold ------------------------------------------------------------------------------------------------------


def test_contamination_sets_the_threshold_at_that_quantile(
    features: pl.DataFrame, make_context: MakeContext, postgres: Postgres
) -> None:
    report = score(make_context(contamination=0.05))
    assert report.details["scored_now"]["anomaly_share"] == pytest.approx(0.05, abs=0.002)
    exact = np.quantile([value for value, _, _ in stored_scores(postgres).values()], 0.95)
    assert report.details["threshold"] == pytest.approx(exact, abs=1e-9)
    assert all_cards(postgres)[0]["score_threshold"] == report.details["threshold"]


def test_changing_the_threshold_needs_no_training(features: pl.DataFrame, make_context: MakeContext) -> None:
    score(make_context())
    low, high = (score(make_context(score_threshold=value)) for value in (0.45, 0.7))
    assert not low.details["trained"]
    assert not high.details["trained"]
    assert low.details["scored_now"]["anomalies"] > high.details["scored_now"]["anomalies"]


def test_share_outside_its_bounds_is_a_warning(features: pl.DataFrame, make_context: MakeContext) -> None:
    inside = score(make_context(contamination=0.01))
    assert inside.warnings == ()
    outside = score(make_context(contamination=0.2))
    (warning,) = outside.warnings
    assert f"{outside.details['scored_now']['anomaly_share']:.2%} of the readings score above" in warning
    assert "expected are 0.50% to 2.00%" in warning


# --- model, card and row --------------------------------------------------------------------------------------------


def test_card_says_what_the_model_is(
    postgres: Postgres, settings: Settings, features: pl.DataFrame, make_context: MakeContext
) -> None:
    report = train(make_context(trees=20, random_seed=5, training_rows=2000))
    assert report.rows_in == READINGS
    assert report.rows_out == report.details["training_rows"]
    folder = settings.models_dir
    assert sorted(path.name for path in folder.iterdir()) == ["isolation_forest_v1.joblib", "isolation_forest_v1.json"]
    card = json.loads((folder / "isolation_forest_v1.json").read_text())
    assert card == all_cards(postgres)[0]
    content = (folder / "isolation_forest_v1.joblib").read_bytes()
    assert card["sha256"] == sha256(content).hexdigest()
    model = load_model(folder, card)
    forest = model.forest
    assert len(forest.estimators_) == card["parameters"]["trees"] == 20
    assert forest.random_state == card["parameters"]["random_seed"] == 5
    assert forest.max_samples_ == card["parameters"]["max_samples"] == 256
    names = [entry["name"] for entry in card["features"]]
    assert names == ["ratio_24h", "hour_of_week", "spread_24h", "level_24h"]  # no sub-meters here
    assert forest.n_features_in_ == len(names)
    assert 0 < card["training"]["rows"] <= 2000
    assert card["training"]["population_rows"] == READINGS
    assert card["training"]["meters"] == METERS
    first, last = (datetime.fromisoformat(card["training"][f"{end}_timestamp"]) for end in ("first", "last"))
    assert datetime(2024, 1, 1) <= first < last < datetime(2024, 1, 1) + timedelta(days=DAYS)
    assert card["libraries"]["scikit-learn"] == sklearn.__version__
    quantiles = card["score_quantiles"]
    assert quantiles["probabilities"][0] == 0
    assert quantiles["probabilities"][-1] == 1
    assert quantiles["scores"] == sorted(quantiles["scores"])
    assert 0 < quantiles["scores"][0] < quantiles["scores"][-1] <= 1
    with postgres.connect() as connection:
        row = connection.execute(
            "select file_name, sha256, training_rows, score_threshold from ml.model_versions"
        ).fetchone()
    assert row == ("isolation_forest_v1.joblib", card["sha256"], card["training"]["rows"], 0.6)


def test_saved_scores_are_those_of_the_forest_read_back(
    postgres: Postgres, settings: Settings, features: pl.DataFrame, make_context: MakeContext
) -> None:
    score(make_context())
    model = load_model(settings.models_dir, all_cards(postgres)[0])
    found = stored_scores(postgres)
    with prepared_features(postgres) as connection:
        for batch in stream_features(connection, model.features, batch_readings=700):
            expected = scores(model.forest, build_matrix(batch, model.features))
            assert [found[key][0] for key in batch["reading_id"].to_pylist()] == list(expected)


def test_training_again_makes_the_next_version_and_leaves_the_old_in_force(
    postgres: Postgres, settings: Settings, features: pl.DataFrame, make_context: MakeContext
) -> None:
    score(make_context())
    assert train(make_context(trees=10)).details["model_version"] == 2
    assert score(make_context()).skipped == "up to date"
    assert {version for _, _, version in stored_scores(postgres).values()} == {1}
    assert rescore(make_context(), full_refresh=True).details["model_version"] == 1
    report = rescore(make_context(), "all")
    assert report.details["model_version"] == 2
    assert {version for _, _, version in stored_scores(postgres).values()} == {2}
    assert score(make_context()).skipped == "up to date"
    assert load_model(settings.models_dir, all_cards(postgres)[1]).version == 1


def test_before_the_first_scoring_training_leaves_nothing_behind_but_the_model(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext
) -> None:
    train(make_context())
    with postgres.connect() as connection:
        found = connection.execute(
            "select to_regclass('ml.feature_days'), (select count(*) from ml.reading_scores), "
            "(select count(in_force_since) from ml.model_versions)"
        ).fetchone()
    assert found == (None, 0, 0)
    assert score(make_context()).details["trained"] is False


def test_files_of_a_training_that_was_killed_are_not_overwritten(
    postgres: Postgres, settings: Settings, features: pl.DataFrame, make_context: MakeContext
) -> None:
    train(make_context())
    orphan = settings.models_dir / "isolation_forest_v2.joblib"
    orphan.write_bytes(b"of a killed training")
    (settings.models_dir / "isolation_forest_vX.joblib").write_bytes(b"of somebody else")
    assert score(make_context()).details["model_version"] == 1
    assert train(make_context()).details["model_version"] == 3
    assert orphan.read_bytes() == b"of a killed training"


def test_changed_training_settings_are_a_warning_and_no_retraining(
    features: pl.DataFrame, make_context: MakeContext
) -> None:
    score(make_context())
    report = rescore(make_context(trees=33, random_seed=1), full_refresh=True)
    assert not report.details["trained"]
    assert "trees = 33 (model: 30), random_seed = 1 (model: 42)" in report.warnings[0]


def test_few_readings_are_a_warning(postgres: Postgres, make_context: MakeContext) -> None:
    store_features(postgres, fleet().head(50))
    assert "only 50 readings to learn from" in train(make_context()).warnings[0]


# --- the data has moved on: train -----------------------------------------------------------------------------------


def test_data_that_outgrew_the_model_is_trained_on(postgres: Postgres, make_context: MakeContext) -> None:
    store_features(postgres, fleet(days=4))
    score(make_context())
    store_features(postgres, fleet(days=8))
    assert not score(make_context()).details["trained"]
    store_features(postgres, fleet(days=9))
    report = score(make_context())
    assert report.details["trained"]
    assert report.details["training_reason"] == "2,592 readings now, 1,152 when model v1 was trained"


def test_data_without_what_the_model_needs_is_trained_on_in_the_step(
    postgres: Postgres, settings: Settings, make_context: MakeContext
) -> None:
    with_submeters = fleet().with_columns((pl.col("reading_id") % 10 / 20).alias("sub2_ratio"))
    store_features(postgres, with_submeters)
    score(make_context())
    store_features(postgres, fleet())
    report = score(make_context())
    assert report.details["trained"]
    told = "no data now for submetered_share (sub1_ratio, sub2_ratio, sub3_ratio) of model v1"
    assert told in report.details["training_reason"]
    assert "submetered_share" not in report.details["features"]
    assert f"model v2 is in force now, and v1 no more (there is {told})" in report.warnings[0]
    store_features(postgres, with_submeters)
    back = score(make_context())
    assert back.details["model_version"] == 2  # in force, and it fits
    assert "data for submetered_share" in back.warnings[0]


# --- the model is not what it was: an error -------------------------------------------------------------------------


def _append_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda model: _append_a_byte(model), "isolation_forest_v1.joblib was altered"),
        (lambda model: model.unlink(), "isolation_forest_v1.joblib cannot be read"),
        (lambda model: model.with_suffix(".json").unlink(), "isolation_forest_v1.json cannot be read"),
        (lambda model: model.with_suffix(".json").write_text("{"), "isolation_forest_v1.json differs"),
        (
            lambda model: model.with_suffix(".json").write_text(
                model.with_suffix(".json").read_text().replace('"score_threshold": 0.6', '"score_threshold": 0.9')
            ),
            "differs from ml.model_versions in score_threshold",
        ),
    ],
    ids=["altered", "missing", "card missing", "card unreadable", "card altered"],
)
def test_a_damaged_model_is_refused_and_nothing_changes(
    postgres: Postgres,
    settings: Settings,
    features: pl.DataFrame,
    make_context: MakeContext,
    damage: Callable[[Path], object],
    told: str,
) -> None:
    score(make_context())
    before = stored_scores(postgres)
    damage(settings.models_dir / "isolation_forest_v1.joblib")
    for _ in range(2):
        with pytest.raises(ModelError, match=told) as raised:
            rescore(make_context(), full_refresh=True)
        assert raised.value.exit_code == 6
        assert "`energy-iot train`" in raised.value.fix
        assert "`energy-iot run --rescore all`" in raised.value.fix
        assert stored_scores(postgres) == before
        train(make_context())  # is not in force by itself
    assert rescore(make_context(), "all").details["model_version"] == 3  # what the message says helps


class _Harmful:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def test_an_exchanged_file_is_never_loaded(
    postgres: Postgres, settings: Settings, features: pl.DataFrame, make_context: MakeContext, tmp_path: Path
) -> None:
    score(make_context())
    trace = tmp_path / "it-ran"
    path = settings.models_dir / "isolation_forest_v1.joblib"
    joblib.dump(_Harmful(trace), path)
    # the card beside it exchanged as well: the database's hash still differs
    card = json.loads(path.with_suffix(".json").read_text()) | {"sha256": sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"differs from ml\.model_versions in sha256"):
        rescore(make_context(), full_refresh=True)
    assert not trace.exists()
    joblib.load(path)
    assert trace.exists()  # it would have run


def _rename_feature(card: dict[str, Any]) -> None:
    card["features"][1] = card["features"][1] | {"name": "moon_phase"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_rename_feature, "unknown here: moon_phase"),
        (lambda card: card["features"][0].update(value="1"), "computed otherwise here: ratio_24h"),
        (
            lambda card: card["features"].pop(),
            "takes 4 features, and its card names 3: ratio_24h, hour_of_week, spread_24h",
        ),
        (lambda card: card["libraries"].update({"scikit-learn": "0.22.1"}), "made with scikit-learn 0.22.1"),
    ],
    ids=["unknown feature", "changed definition", "too few features", "another library"],
)
def test_a_model_of_another_program_is_refused(
    postgres: Postgres,
    settings: Settings,
    features: pl.DataFrame,
    make_context: MakeContext,
    change: Callable[[dict[str, Any]], object],
    told: str,
) -> None:
    score(make_context())
    rewrite_card(postgres, settings, change)
    with pytest.raises(ModelError, match=told) as raised:
        rescore(make_context(), full_refresh=True)
    assert raised.value.exit_code == 6
    assert len(all_cards(postgres)) == 1


def test_a_bugfix_of_the_library_is_a_warning(
    postgres: Postgres, settings: Settings, features: pl.DataFrame, make_context: MakeContext
) -> None:
    score(make_context())
    older = ".".join([*sklearn.__version__.split(".")[:2], "999"])
    rewrite_card(postgres, settings, lambda card: card["libraries"].update({"scikit-learn": older}))
    report = rescore(make_context(), full_refresh=True)
    assert f"made with scikit-learn {older}, and this is {sklearn.__version__}" in report.warnings[0]


def test_what_is_no_forest_is_refused(
    postgres: Postgres, settings: Settings, features: pl.DataFrame, make_context: MakeContext
) -> None:
    score(make_context())
    path = settings.models_dir / "isolation_forest_v1.joblib"
    for content, told in ((b"not a pickle", "does not load"), (None, "holds a list, not an IsolationForest")):
        if content is None:
            joblib.dump([1, 2], path)
        else:
            path.write_bytes(content)
        rewrite_card(postgres, settings, lambda card: card.update(sha256=sha256(path.read_bytes()).hexdigest()))
        with pytest.raises(ModelError, match=told):
            score(make_context())


def test_an_interrupted_write_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(model_store.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        model_store._write_whole(tmp_path / "model.joblib", b"content")
    assert not (tmp_path / "model.joblib").exists()


# --- nothing to work on ---------------------------------------------------------------------------------------------


def test_no_feature_table_says_which_command_makes_it(make_context: MakeContext) -> None:
    for step in (score, train):
        with pytest.raises(ModelError, match=r"no table intermediate\.int_consumption_features") as raised:
            step(make_context())
        assert "energy-iot transform intermediate" in raised.value.fix


def test_a_missing_column_is_told(postgres: Postgres, features: pl.DataFrame, make_context: MakeContext) -> None:
    for name in ("sub3_ratio", "window_hours_24h"):
        execute(postgres, f"alter table intermediate.int_consumption_features drop column {name}")
        with pytest.raises(ModelError, match=f"has no column .*{name}"):
            score(make_context())


def test_without_readings_there_are_no_scores(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext
) -> None:
    """A fleet whose files were all forgotten, and one that has not begun."""
    score(make_context())
    store_features(postgres, features.head(0))
    for full_refresh in (False, True):
        report = rescore(make_context(), full_refresh=full_refresh)
        assert (report.rows_in, report.rows_out, report.skipped) == (0, 0, "no readings to score")
        assert stored_scores(postgres) == {}
    assert score(make_context()).skipped == "up to date"
    with pytest.raises(ModelError, match="holds no readings"):
        train(make_context())
    store_features(postgres, features)
    report = score(make_context())
    assert (report.rows_out, report.details["model_version"], report.details["trained"]) == (READINGS, 1, False)


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN"])
@pytest.mark.parametrize("full_refresh", [False, True])
def test_values_that_are_no_numbers_are_refused(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext, value: str, full_refresh: bool
) -> None:
    score(make_context())
    before = stored_scores(postgres)
    for name in ("hour_of_week_z_score", "avg_consumption_24h"):
        broken = pl.when(pl.col("reading_id") == 9).then(float(value)).otherwise(pl.col(name)).alias(name)
        store_features(postgres, features.with_columns(broken))
        with pytest.raises(ModelError, match=f"holds NaN or infinity in {name}"):
            rescore(make_context(), full_refresh=full_refresh)
        assert stored_scores(postgres) == before


# --- agreement with labels ------------------------------------------------------------------------------------------


def store_labels(postgres: Postgres, labels: dict[int, bool | None], source: str) -> None:
    with postgres.connect() as connection:
        connection.execute("create table staging.stg_meter_readings (reading_id bigint, is_labelled_anomaly boolean)")
        connection.cursor().executemany("insert into staging.stg_meter_readings values (%s, %s)", list(labels.items()))
        connection.execute(
            "insert into raw_data.ingested_files (sha256, file_name, source_name, interval_minutes, size_bytes, "
            "lines_read, readings_loaded, readings_without_consumption, readings_rejected, run_id) "
            "values ('0', 'f.csv', %s, 30, 1, 1, 1, 0, 0, 'r')",
            (source,),
        )


def test_agreement_equals_an_independent_computation(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext
) -> None:
    planted = {50 + 300 * number: (8.0, 6.0) for number in range(10)}
    store_features(postgres, plant(features, planted))
    labels: dict[int, bool | None] = {key: key in planted or key % 97 == 0 for key in range(1, 2001)}
    labels[3000] = None
    store_labels(postgres, labels, "long_format")
    details = run_step("ml_score", make_context()).report.details["agreement"]
    found = stored_scores(postgres)
    known = [key for key, label in labels.items() if label is not None]
    odd = np.array([found[key][0] for key in known if labels[key]])
    usual = np.array([found[key][0] for key in known if not labels[key]])
    detected = {key for key in known if found[key][1]}
    hits = sum(bool(labels[key]) for key in detected)
    assert details["labelled_readings"] == 2000
    assert details["labelled_anomalies"] == len(odd)
    pairs = odd[:, np.newaxis] - usual[np.newaxis, :]
    assert details["roc_auc"] == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    assert details["precision"] == pytest.approx(hits / len(detected))
    assert details["recall"] == pytest.approx(hits / len(odd))
    levels = sorted({found[key][0] for key in known}, reverse=True)
    precision_at = [np.sum(odd >= level) / (np.sum(odd >= level) + np.sum(usual >= level)) for level in levels]
    recall_at = [np.mean(odd >= level) for level in levels]
    assert details["average_precision"] == pytest.approx(np.dot(precision_at, np.diff([0.0, *recall_at])))
    assert details["caveat"] is None
    store_features(postgres, plant(features, planted))
    later = score(make_context())
    assert later.details["mode"] == "incremental"
    assert later.details["agreement"] == details  # of evaluated_at: nothing was compared anew


def test_the_kaggle_labels_come_with_their_caveat(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext
) -> None:
    store_labels(postgres, {key: key % 20 == 0 for key in range(1, 500)}, "kaggle_smart_meter")
    assert score(make_context()).details["agreement"]["caveat"] == KAGGLE_CAVEAT
    assert "never that theft is found" in KAGGLE_CAVEAT


def test_labels_of_one_kind_leave_undefined_figures_out(
    postgres: Postgres, features: pl.DataFrame, make_context: MakeContext
) -> None:
    store_labels(postgres, dict.fromkeys(range(1, 500), False), "long_format")
    score(make_context(score_threshold=0.99))
    agreement = evaluate_labels(postgres, 1)
    assert agreement is not None
    assert (agreement.labelled_readings, agreement.labelled_anomalies) == (499, 0)
    assert (agreement.roc_auc, agreement.average_precision, agreement.precision, agreement.recall) == (None,) * 4


def test_no_labels_no_agreement(postgres: Postgres, features: pl.DataFrame, make_context: MakeContext) -> None:
    store_labels(postgres, dict.fromkeys(range(1, 500), None), "uci_household_power")
    score(make_context())
    assert evaluate_labels(postgres, 1) is None
