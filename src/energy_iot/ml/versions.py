"""Model versions as the database knows them: which one is in force, and which one fits the data.

One version is in force: its scores are there for every reading, and the marts show no other. What happens when it
cannot be used follows one rule. When the *data* has moved on (a column the model needs is empty now, or there is far
more than it was trained on), another version takes its place, a new one if need be. When the *model* is not what it was
(file missing or altered, features that this program does not compute, another scikit-learn), it is an error: only a
person can say whether the yardstick may change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg

from energy_iot.errors import ModelError
from energy_iot.ml.config import MAX_GROWTH
from energy_iot.ml.features import FEATURES, features_of_card
from energy_iot.settings import Settings

Card = Mapping[str, Any]


@dataclass(frozen=True)
class Survey:
    """What the feature table holds.

    Attributes:
        readings: Its rows.
        known: For each feature, how many readings have a value.
    """

    readings: int
    known: Mapping[str, int]

    @property
    def features_with_values(self) -> list[str]:
        """Names of the features that some reading has a value for."""
        return [name for name, count in self.known.items() if count]


@dataclass(frozen=True)
class ModelVersion:
    """A row of ml.model_versions.

    Attributes:
        card: Its model card.
        in_force: Whether its scores are those that count; at most one version is.
    """

    card: Card
    in_force: bool = False

    @property
    def number(self) -> int:
        """Rises with each training."""
        return int(self.card["model_version"])


def read_versions(connection: psycopg.Connection) -> list[ModelVersion]:
    """All versions, newest first."""
    rows = connection.execute(
        "select card || jsonb_build_object('sha256', sha256), in_force_since is not null "
        "and in_force_since = max(in_force_since) over () from ml.model_versions order by model_version desc"
    ).fetchall()
    return [ModelVersion(*row) for row in rows]


def version_in_force(versions: Sequence[ModelVersion]) -> ModelVersion | None:
    """The one whose scores count, or None before the first scoring."""
    return next((version for version in versions if version.in_force), None)


def choose_version(
    versions: Sequence[ModelVersion], survey: Survey, *, prefer_newest: bool
) -> tuple[ModelVersion | None, str | None]:
    """The version to score with, or None when a new one must be trained; and why not the one preferred.

    Args:
        versions: All, newest first.
        survey: What the feature table holds now.
        prefer_newest: Take the newest that fits, and not the one in force.
    """
    preferred = sorted(versions, key=lambda version: not version.in_force and not prefer_newest)
    reasons = [misfit(version, survey) for version in preferred]
    for version, reason in zip(preferred, reasons, strict=True):
        if reason is None:
            return version, reasons[0]
    return None, reasons[0] if reasons else "there is none yet"


def misfit(version: ModelVersion, survey: Survey) -> str | None:
    """Why this version cannot score the data as it is now, or None when it fits."""
    card = version.card
    if not version.in_force:  # of that one it would be an error
        try:
            features_of_card(card["features"])
        except ModelError as error:
            return f"model v{version.number}: {error.problem}"
    lacking = lacking_features(card, survey)
    if lacking:
        return f"there is no data now for {', '.join(lacking)} of model v{version.number}"
    training = card["training"]
    if training["nothing_to_compare"] and survey.features_with_values != training["features_with_values"]:
        return f"there was nothing to compare readings with when model v{version.number} was trained"
    if survey.readings > MAX_GROWTH * training["population_rows"]:
        return (
            f"{survey.readings:,} readings now, {training['population_rows']:,} when model v{version.number} "
            "was trained"
        )
    return None


def lacking_features(card: Card, survey: Survey) -> list[str]:
    """The card's features that had values in training and have none now, each with the columns it is computed from."""
    inputs = {feature.name: ", ".join(feature.columns) for feature in FEATURES}
    names = [entry["name"] for entry in card["features"] if entry["name"] in card["training"]["features_with_values"]]
    return [f"{name} ({inputs[name]})" for name in names if survey.known.get(name) == 0]


def score_threshold(card: Card, settings: Settings) -> float:
    """The score above which a reading is an anomaly: the setting, or the quantile that `contamination` asks for.

    It is worked out anew for each scoring, so that changing the setting needs no training.
    """
    if settings.contamination is None:
        return settings.score_threshold
    return interpolate_quantile(card, 1 - settings.contamination)


def interpolate_quantile(card: Card, probability: float) -> float:
    """The score that `probability` of the training readings do not exceed, from the card's quantiles."""
    quantiles = card["score_quantiles"]
    return float(np.interp(probability, quantiles["probabilities"], quantiles["scores"]))


def training_settings(settings: Settings) -> Mapping[str, int]:
    """The settings that shape a model."""
    return {
        "trees": settings.trees,
        "random_seed": settings.random_seed,
        "training_rows": settings.training_rows,
        "history_days": settings.history_days,
    }


def outdated_settings(card: Card, settings: Settings) -> tuple[str, ...]:
    """Settings that differ from those the model was trained with."""
    made_with = card["parameters"]
    changed = [
        f"{name} = {value} (model: {made_with[name]})"
        for name, value in training_settings(settings).items()
        if made_with[name] != value
    ]
    if not changed:
        return ()
    return (
        f"model v{card['model_version']} was trained with other settings: {', '.join(changed)}; "
        "`energy-iot train` makes a new one",
    )


def unused_features(card: Card, survey: Survey) -> tuple[str, ...]:
    """Features that readings came to have a value for after the model was trained, so that it does not look at them."""
    new = [name for name in survey.features_with_values if name not in card["training"]["features_with_values"]]
    if not new:
        return ()
    return (
        f"model v{card['model_version']} was trained before there was data for {', '.join(new)}; "
        "`energy-iot train` makes one that uses it",
    )
