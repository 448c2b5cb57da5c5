"""Train an Isolation Forest on a sample of the features, and save it with its card."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import IsolationForest
from sklearn.tree import ExtraTreeRegressor

from energy_iot.errors import ModelError
from energy_iot.ml.config import (
    BATCH_READINGS,
    FEATURE_TABLE,
    MIN_WINDOW_HOURS,
    QUANTILE_PROBABILITIES,
    SUBSAMPLE_READINGS,
)
from energy_iot.ml.feature_days import make_habits, rebuild_feature_days, survey_days
from energy_iot.ml.features import FEATURES, Feature, Matrix, build_matrix
from energy_iot.ml.model_store import Model, library_versions, save_model
from energy_iot.ml.utils import Sample, draw_sample, open_features
from energy_iot.ml.versions import Card, Survey, score_threshold, training_settings
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.settings import Settings
from energy_iot.storage.postgres import Postgres, open_postgres


def fit(matrix: Matrix, *, trees: int, seed: int) -> IsolationForest:
    """Grow an Isolation Forest.

    Args:
        matrix: Shape (n_readings, n_features), finite; the order of readings matters to the result.
        trees: How many.
        seed: Random state; the same seed and matrix give the same forest.

    Returns:
        The forest; `scores` gives the score of readings.

    Raises:
        ModelError: There are no readings, or values that are no numbers.

    Source: Liu, Ting & Zhou (2008), doi:10.1109/ICDM.2008.17.
    """
    if not len(matrix):
        raise ModelError("there are no readings to train on", fix="load a file with consumption: `energy-iot run FILE`")
    _refuse_non_numbers(matrix)
    # contamination other than 'auto' would score all of it again, for an offset that is not used here
    forest = IsolationForest(
        n_estimators=trees,
        max_samples=min(SUBSAMPLE_READINGS, len(matrix)),
        contamination="auto",
        random_state=seed,
    )
    return forest.fit(matrix)


def scores(forest: IsolationForest, matrix: Matrix) -> npt.NDArray[np.float64]:
    """The published score of each reading, shape (n_readings,), in (0, 1]; higher is stranger, 0.5 is ordinary.

    It equals `-forest.score_samples(matrix)` to the last digit. That one exchanges the warning filters of the whole
    process for each tree, which threads must not do at once.

    Raises:
        ModelError: `matrix` holds values that are no numbers.

    Example:
        >>> usual = np.linspace(0, 1, 200, dtype=np.float32)[:, np.newaxis]
        >>> forest = fit(usual, trees=50, seed=0)
        >>> inside, outside = scores(forest, np.array([[0.5], [30.0]], dtype=np.float32))
        >>> bool(inside < 0.5 < outside)
        True

    Source: s(x, n) = 2^(-E(h(x)) / c(n)) of Liu, Ting & Zhou (2008), doi:10.1109/ICDM.2008.17.
    """
    _refuse_non_numbers(matrix)
    path_length = np.zeros(len(matrix))
    for tree in forest.estimators_:
        path_length += _leaf_path_lengths(tree)[tree.apply(matrix, check_input=False)]
    usual = len(forest.estimators_) * _average_path_length(np.array([forest.max_samples_]))
    # a forest of one reading has no path at all
    relative = np.divide(path_length, usual, out=np.ones_like(path_length), where=usual > 0)
    result: npt.NDArray[np.float64] = 2**-relative
    return result


def _leaf_path_lengths(tree: ExtraTreeRegressor) -> npt.NDArray[np.float64]:
    """Path length h of each node, were it a leaf: edges from the root, and what its readings still need to be apart."""
    edges = tree.tree_.compute_node_depths()  # counts the root as 1
    lengths: npt.NDArray[np.float64] = edges + _average_path_length(tree.tree_.n_node_samples) - 1.0
    return lengths


def _average_path_length(readings: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """c(n): edges of an unsuccessful search in a binary tree of n readings, equation 1 of the paper."""
    n = np.maximum(readings, 3).astype(np.float64)
    of_many = 2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n
    return np.select([readings <= 1, readings == 2], [0.0, 1.0], of_many)


def _refuse_non_numbers(matrix: Matrix) -> None:
    broken = len(matrix) - int(np.isfinite(matrix).all(axis=1).sum())
    if broken:  # scikit-learn's forest takes NaN and infinity without a word
        raise ModelError(
            f"{broken:,} of {len(matrix):,} readings hold values that are no numbers",
            fix="run `energy-iot transform intermediate`, which computes the features anew",
        )


def features_with_values(sample: Sample) -> tuple[Feature, ...]:
    """The features that have any value in the training readings; the others (no sub-meters, no history) have none."""
    return tuple(one for one in FEATURES if sample.table[one.name].null_count < sample.table.num_rows)


def train_model(postgres: Postgres, cursor: Any, survey: Survey, settings: Settings) -> Model:
    """Draw a sample, fit, and save the next version; it is not in force.

    Args:
        postgres: Where the versions are.
        cursor: Of a transaction in which ml.feature_days is as the readings are, and all habits are worked out.
        survey: What the feature table holds.
        settings: Size of sample and forest, and the seed of both.
    """
    sample = draw_sample(cursor, settings.training_rows, population=survey.readings, seed=settings.random_seed)
    # all where none has values: every reading is as ordinary as any other then
    features = features_with_values(sample) or FEATURES
    matrix = build_matrix(sample.table, features)
    forest = fit(matrix, trees=settings.trees, seed=settings.random_seed)
    training_scores = np.concatenate(
        [scores(forest, matrix[start : start + BATCH_READINGS]) for start in range(0, len(matrix), BATCH_READINGS)]
    )

    def make_card(number: int, file_name: str, sha256: str) -> Card:
        return describe_model(
            settings,
            survey,
            sample,
            features,
            forest,
            training_scores,
            number=number,
            file_name=file_name,
            sha256=sha256,
        )

    card = save_model(postgres, settings.models_dir, forest, make_card)
    return Model(forest, card, features)


def describe_model(
    settings: Settings,
    survey: Survey,
    sample: Sample,
    features: tuple[Feature, ...],
    forest: IsolationForest,
    training_scores: npt.NDArray[np.float64],
    *,
    number: int,
    file_name: str,
    sha256: str,
) -> dict[str, Any]:
    """The model card: JSON-able, all that is needed to know what a score means and whether a model may be used."""
    card: dict[str, Any] = {
        "model_version": number,
        "model_file": file_name,
        "sha256": sha256,
        "trained_at": datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds"),
        "features": [feature.to_card() for feature in features],
        "training": {
            "rows": sample.table.num_rows,
            "population_rows": survey.readings,
            "features_with_values": survey.features_with_values,
            "nothing_to_compare": not features_with_values(sample),
            "meters": sample.meters,
            "first_timestamp": sample.first.isoformat(),
            "last_timestamp": sample.last.isoformat(),
        },
        "parameters": {**training_settings(settings), "max_samples": int(forest.max_samples_)},
        "libraries": library_versions(),
        "score_quantiles": {
            "probabilities": list(QUANTILE_PROBABILITIES),
            "scores": [float(score) for score in np.quantile(training_scores, QUANTILE_PROBABILITIES)],
        },
    }
    return card | {"score_threshold": score_threshold(card, settings), "contamination": settings.contamination}


def train(context: RunContext) -> StepReport:
    """Train a new model version on the features as they are now; the one in force stays so.

    Raises:
        ModelError: There is nothing to train on.
    """
    settings = context.settings
    with open_postgres(settings) as postgres, open_features(postgres) as connection, connection.cursor() as cursor:
        rebuild_feature_days(cursor)  # for this transaction only, which ends without a commit
        survey = survey_days(cursor)
        if not survey.readings:
            raise ModelError(
                f"{FEATURE_TABLE} holds no readings: there is nothing to train on",
                fix="load a file with consumption: `energy-iot run FILE`",
            )
        make_habits(cursor, history_days=settings.history_days)
        with context.progress.task("training a model", min(survey.readings, settings.training_rows)) as advance:
            model = train_model(postgres, cursor, survey, settings)
            advance(model.card["training"]["rows"])
    return StepReport(
        survey.readings, model.card["training"]["rows"], training_warnings(model), training_details(model)
    )


def training_details(model: Model) -> dict[str, Any]:
    """Figures of a model for the step's report."""
    return {
        "model_version": model.version,
        "threshold": model.card["score_threshold"],
        "training_rows": model.card["training"]["rows"],
        "features": [feature.name for feature in model.features],
    }


def training_warnings(model: Model) -> tuple[str, ...]:
    """What a person should know about a new model."""
    training = model.card["training"]
    told = []
    if training["rows"] < SUBSAMPLE_READINGS:
        told.append(
            f"model v{model.version} has only {training['rows']} readings to learn from: below {SUBSAMPLE_READINGS} "
            "scores say little"
        )
    if training["nothing_to_compare"]:
        told.append(
            f"there is nothing to compare readings with yet: no meter has {MIN_WINDOW_HOURS} hours of readings above "
            "zero, so all score alike; another model is trained as soon as one has"
        )
    return tuple(told)
