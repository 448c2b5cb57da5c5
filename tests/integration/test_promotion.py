"""A new model comes into force when it measures alike, and is kept out with a reason when it does not."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energy_iot.errors import ModelError, UsageError
from energy_iot.ml import promotion
from energy_iot.ml.drift import stability_index
from energy_iot.ml.promotion import Comparison, compare_models, promote_model
from energy_iot.ml.score_anomalies import score
from energy_iot.ml.train_anomaly_model import train
from energy_iot.pipeline import RunContext, RunOptions, StepReport, run_step, start_run
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres
from tests.feature_fleet import METERS, fleet, store_features

DAYS = 40
LAST_DAY = date(2024, 1, 1) + timedelta(days=DAYS - 1)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Small forests: the tests are about what is done with them."""
    return settings.model_copy(update={"trees": 30})


def context(settings: Settings, **changed: Any) -> RunContext:
    wanted = settings.model_copy(update=changed)
    return RunContext(wanted, start_run(wanted, RunOptions()))


def step(name: str, settings: Settings, **changed: Any) -> StepReport:
    """As a run does it: recorded."""
    return run_step(name, context(settings, **changed)).report


@pytest.fixture
def scored(postgres: Postgres, settings: Settings) -> pl.DataFrame:
    """A fleet, scored by version 1."""
    frame = fleet(DAYS)
    store_features(postgres, frame)
    score(context(settings))
    return frame


def in_force(postgres: Postgres) -> int:
    with postgres.connect() as connection:
        row = connection.execute(
            "select model_version from ml.model_versions order by in_force_since desc nulls last limit 1"
        ).fetchone()
    assert row is not None
    return int(row[0])


def versions_of_scores(postgres: Postgres) -> dict[int, int]:
    with postgres.connect() as connection:
        return dict(connection.execute("select model_version, count(*) from ml.reading_scores group by 1").fetchall())


def test_one_that_measures_alike_comes_into_force(scored: pl.DataFrame, settings: Settings, postgres: Postgres) -> None:
    train(context(settings, random_seed=99))
    compared = step("compare_models", settings)
    found = compared.details["comparison"]
    assert (found["model_version"], found["in_force"]) == (2, 1)
    assert found["days"] == f"{LAST_DAY - timedelta(days=29)}..{LAST_DAY}"
    assert found["readings"] == compared.rows_out == 30 * 48 * METERS
    assert found["objections"] == ()
    assert 0 <= found["score_shift"] < 0.1
    assert found["correlation"] > 0.7  # of 30 trees each
    assert (found["label_auc"], found["inspection_auc"], found["inspected_meters"]) == (None, None, 0)
    assert in_force(postgres) == 1

    promoted = step("promote_model", settings)
    assert promoted.skipped is None
    assert promoted.rows_out == scored.height
    assert in_force(postgres) == 2
    assert versions_of_scores(postgres) == {2: scored.height}
    assert "no newer model" in str(step("promote_model", settings).skipped)
    assert "v2, is in force" in str(step("compare_models", settings).skipped)


def test_one_that_measures_otherwise_is_kept_out(scored: pl.DataFrame, settings: Settings, postgres: Postgres) -> None:
    train(context(settings, random_seed=99))
    compared = step("compare_models", settings, promotion_max_score_shift=1e-9)
    (objection,) = compared.details["comparison"]["objections"]
    assert "scores are distributed otherwise" in objection
    before = versions_of_scores(postgres)
    kept = step("promote_model", settings)
    assert "model v1 stays in force: scores are distributed otherwise" in str(kept.skipped)
    assert in_force(postgres) == 1
    assert versions_of_scores(postgres) == before
    assert before[1] == scored.height


def test_the_shift_is_that_of_the_tenths_of_the_old_scores(
    scored: pl.DataFrame, settings: Settings, postgres: Postgres
) -> None:
    train(context(settings, random_seed=99))
    found = step("compare_models", settings).details["comparison"]
    with postgres.connect() as connection:
        rows = connection.execute(
            "select model_version, anomaly_score from ml.reading_scores where reading_timestamp >= %s",
            (LAST_DAY - timedelta(days=29),),
        ).fetchall()
    scores = {version: np.array([one for number, one in rows if number == version]) for version in (1, 2)}
    ends = np.quantile(scores[1], np.arange(1, 10) / 10)
    counts = [
        np.bincount(np.searchsorted(ends, scores[version], side="right"), minlength=10).astype(float)
        for version in (1, 2)
    ]
    assert found["score_shift"] == pytest.approx(stability_index(*counts), abs=1e-12)


def test_agreement_with_inspections_counts(
    scored: pl.DataFrame, settings: Settings, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "MIN_EACH", 2)
    train(context(settings, random_seed=99))
    with postgres.connect() as connection:
        mean = dict(
            connection.execute(
                "select meter_id, avg(anomaly_score) from ml.reading_scores "
                "where reading_timestamp >= %s and reading_timestamp < %s group by 1",
                (LAST_DAY - timedelta(days=29), LAST_DAY - timedelta(days=5)),
            ).fetchall()
        )
        for place, meter in enumerate(sorted(mean, key=lambda meter: float(mean[meter]))):
            connection.execute(
                "insert into raw_data.inspections (meter_id, inspected_on, found_theft, source_file, file_id) "
                "values (%s, %s, %s, 'outcomes.csv', 1), (%s, %s, true, 'old.csv', 1)",
                (meter, LAST_DAY - timedelta(days=5), place >= METERS - 2, meter, LAST_DAY - timedelta(days=60)),
            )
    found = step("compare_models", settings).details["comparison"]
    assert found["inspected_meters"] == METERS  # those of old days say nothing about these
    assert found["inspection_auc_in_force"] == 1.0
    assert found["inspection_auc"] is not None


def test_agreement_with_labels_counts(
    scored: pl.DataFrame, settings: Settings, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(context(settings, random_seed=99))
    with postgres.connect() as connection:
        connection.execute(
            "create table staging.stg_meter_readings as select reading_id, anomaly_score > "
            "(select percentile_cont(0.98) within group (order by anomaly_score) from ml.reading_scores "
            "where model_version = 1) as is_labelled_anomaly from ml.reading_scores where model_version = 1"
        )
    found = step("compare_models", settings).details["comparison"]
    assert found["label_auc_in_force"] == 1.0
    assert 0.8 < found["label_auc"] < 1.0
    kept = replace(Comparison(**found), label_auc=0.9).judged(settings)
    assert ["agrees less with labels: ROC-AUC 0.900 after 1.000" in one for one in kept.objections] == [True]


@pytest.mark.parametrize(
    ("share", "share_in_force", "refused"),
    [(0.01, 0.01, False), (0.03, 0.01, True), (0.03, 0.05, False), (0.001, 0.004, True), (0.0, 0.0, False)],
)
def test_a_share_of_anomalies_farther_from_what_is_expected_is_refused(
    share: float, share_in_force: float, refused: bool, settings: Settings
) -> None:
    found = Comparison(2, 1, "2024-01-01..2024-01-30", 1000, share, share_in_force, 0.0, 1.0, None, None, None, None, 0)
    judged = found.judged(settings)
    assert bool(judged.objections) == refused
    assert ("would be anomalies" in str(judged)) == refused
    assert ("all bounds hold" in str(judged)) != refused


def test_nothing_is_promoted_unseen(scored: pl.DataFrame, settings: Settings) -> None:
    assert scored.height
    train(context(settings, random_seed=99))
    with pytest.raises(UsageError, match="has not been compared") as told:
        promote_model(context(settings))
    assert told.value.fix == "energy-iot compare-models"
    step("compare_models", settings)
    train(context(settings, random_seed=98))  # the comparison is not of this one
    with pytest.raises(UsageError, match="model v3 has not been compared with v1"):
        promote_model(context(settings))


def test_without_a_model_there_is_nothing_to_compare_with(settings: Settings) -> None:
    with pytest.raises(ModelError, match="no model is in force"):
        compare_models(context(settings))


counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=20)


@given(counts, st.data())
def test_the_stability_index_is_nought_for_alike_and_the_same_both_ways(
    expected: list[int], data: st.DataObject
) -> None:
    other = data.draw(st.lists(st.integers(0, 10_000), min_size=len(expected), max_size=len(expected)))
    left, right = np.array(expected, dtype=float), np.array(other, dtype=float)
    assert stability_index(left, left) == pytest.approx(0, abs=1e-12)
    assert stability_index(left, right) == pytest.approx(stability_index(right, left))
    assert stability_index(left, right) >= -1e-12
