"""How suspicious each meter is: rules and a forest, less what innocent causes explain.

The forest has no labels: it says which meters stand apart from the fleet in suspicious directions, whatever the
combination. The rules say what thieves' meters look like. Their evidence is joined as if independent (noisy or): a
score rises with each reason, and never above one.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from sklearn.ensemble import IsolationForest

from energy_iot.ml.meter_features import FEATURES, Floats, feature_scores, forest_matrix
from energy_iot.ml.meter_rules import BALANCE, LEVEL, RULES, SHAPE, Scores, column, expected_kwh, ramp
from energy_iot.ml.suppression import CAUSES, MIN_RECENT_WEEKS, MIN_WEEKS, TOLD_FROM

# Meters each tree sees; see ml/config.py on why so few.
SUBSAMPLE_METERS: Final = 256
# Where the forest's score begins to count and where it counts in full, as shares of the fleet: ranks carry over from
# fleet to fleet, scores do not.
FOREST_FROM: Final = 0.80
FOREST_WEIGHT: Final = 0.3
FOREST_ORDER: Final = 0.1  # puts those in order that no rule says anything of
# A reason is told from this strength on.
TOLD_STRENGTH: Final = 0.15
# Independent families of evidence, and what their agreement is worth.
AGREEMENT: Final = (0.4, 0.6, 0.8, 0.95, 1.0)
FULL_HISTORY_WEEKS: Final = 12
# A cause is told that takes the score down by at least so much.
TOLD_DIFFERENCE: Final = 0.05


@dataclass(frozen=True)
class Suspicions:
    """The meters with their scores, and how they came about.

    Attributes:
        table: One row a meter of the frame that was judged, in its order; columns of ml.meter_suspicions.
        strengths: Strength of each rule, by name, shape (meters,).
        certainties: Of each innocent cause, by name, shape (meters,).
        forest: Share of the fleet that the forest finds less odd, shape (meters,).
    """

    table: pl.DataFrame
    strengths: dict[str, Floats]
    certainties: dict[str, Floats]
    forest: Floats


def judge(meters: pl.DataFrame, *, trees: int, seed: int) -> Suspicions:
    """Judge meters from their features.

    Args:
        meters: One row a meter: columns of intermediate.int_meter_features and strange_reading_share. The order of rows
            is of no matter.
        trees: Of the forest.
        seed: Random state of the forest; the same seed and meters give the same scores.

    Source of the forest: Liu, Ting & Zhou (2008), doi:10.1109/ICDM.2008.17.
    """
    meters = meters.sort("meter_id")
    usable = ((meters["week_count"] >= MIN_WEEKS) & (meters["recent_week_count"] >= MIN_RECENT_WEEKS)).to_numpy()
    scores = feature_scores(meters, usable)
    forest = _forest_ranks(scores, usable, trees=trees, seed=seed)
    strengths = {rule.name: rule.strength(meters, scores) for rule in RULES}
    certainties = {cause.name: cause.certainty(meters, scores) for cause in CAUSES}
    suspicion = _combine(strengths, forest, certainties)
    taken_down = _combine(strengths, forest, {}) - suspicion

    told = _reasons(meters, strengths)
    table = pl.DataFrame(
        {
            "meter_id": meters["meter_id"],
            "suspicion_score": suspicion,
            "confidence": _confidence(meters, strengths),
            "reasons": told,
            "suspected_since": _since(meters, strengths),
            "suppressed_cause": _causes(certainties, taken_down),
            "forest_rank": forest,
            "as_of_date": meters["as_of_date"],
        }
    )
    table = table.hstack(_losses(meters, table["suspected_since"]))
    return Suspicions(table, strengths, certainties, forest)


def _forest_ranks(scores: Scores, usable: Any, *, trees: int, seed: int) -> Floats:
    """Share of the usable meters that are less odd than each, by an Isolation Forest; 0 for the others."""
    ranks = np.zeros(len(usable))
    if usable.sum() < 2:
        return ranks
    matrix = forest_matrix(scores)[usable]
    forest = IsolationForest(n_estimators=trees, max_samples=min(SUBSAMPLE_METERS, len(matrix)), random_state=seed)
    oddity = -forest.fit(matrix).score_samples(matrix)
    ranks[usable] = np.searchsorted(np.sort(oddity), oddity, side="left") / (len(oddity) - 1)
    return ranks


def _combine(strengths: dict[str, Floats], forest: Floats, certainties: dict[str, Floats]) -> Floats:
    """Suspicion of each meter, in [0, 1]: each rule and the forest doubt its innocence; causes take doubts away."""
    level_left, shape_left = np.ones(len(forest)), np.ones(len(forest))
    for cause in CAUSES:  # the surest counts
        if cause.name in certainties:
            left = 1 - certainties[cause.name] * (1 - cause.remaining)
            level_left = np.fmin(level_left, left)
            shape_left = np.fmin(shape_left, left) if cause.clears_shape else shape_left
    innocence = np.ones(len(forest))
    for rule in RULES:
        left = level_left if rule.family in {LEVEL, BALANCE} else shape_left
        innocence *= 1 - rule.weight * strengths[rule.name] * left
    oddity = FOREST_WEIGHT * ramp(forest, FOREST_FROM, 1.0) + FOREST_ORDER * forest
    innocence *= 1 - oddity * np.sqrt(level_left * shape_left)
    suspicion: Floats = 1 - innocence
    return suspicion


def _reasons(meters: pl.DataFrame, strengths: dict[str, Floats]) -> list[str | None]:
    """Reasons of each meter as one text, the most telling first."""
    rows = meters.with_columns(expected_kwh=pl.Series(expected_kwh(meters))).to_dicts()
    weighed = {rule.name: rule.weight * strengths[rule.name] for rule in RULES}
    texts: list[str | None] = []
    for number, row in enumerate(rows):
        found = [rule for rule in RULES if strengths[rule.name][number] >= TOLD_STRENGTH]
        found.sort(key=lambda rule: -weighed[rule.name][number])
        texts.append("; ".join(rule.sentence(row) for rule in found) or None)
    return texts


def _since(meters: pl.DataFrame, strengths: dict[str, Floats]) -> pl.Series:
    """First day of the change that the strongest reason is about; null where there is none."""
    by_family = {
        family: np.max(
            [rule.weight * strengths[rule.name] for rule in RULES if (rule.family == SHAPE) == (family == SHAPE)],
            axis=0,
        )
        for family in (SHAPE, LEVEL)
    }
    dated = meters.select(
        pl.when(pl.Series(np.fmax(by_family[SHAPE], by_family[LEVEL]) > 0)).then(
            pl.when(pl.Series(by_family[SHAPE] > by_family[LEVEL])).then("shape_date").otherwise("drop_date")
        )
    )
    return dated.to_series().alias("suspected_since")


def _losses(meters: pl.DataFrame, since: pl.Series) -> pl.DataFrame:
    """Energy that is missing since then, and its value: expected by own past and peers, less what was registered."""
    days = (meters["last_date"] - since).dt.total_days().cast(pl.Float64).fill_null(np.nan).to_numpy() + 1
    missing = np.fmax(expected_kwh(meters) - column(meters, "supplied_day_kwh_since_drop"), 0)
    lost = pl.Series("lost_kwh", missing * days).fill_nan(None)
    return pl.DataFrame(
        {"lost_kwh": lost, "lost_value": lost * meters["tariff_per_kwh"], "currency": meters["currency"]}
    )


def _confidence(meters: pl.DataFrame, strengths: dict[str, Floats]) -> Floats:
    """How far the score can be relied on, 0-1: how much data there is, times how many independent reasons agree."""
    weeks = np.clip(column(meters, "week_count") / FULL_HISTORY_WEEKS, 0, 1)
    families = sorted({rule.family for rule in RULES})
    agreeing = np.sum(
        [
            np.max([strengths[rule.name] for rule in RULES if rule.family == family], axis=0) >= TOLD_STRENGTH
            for family in families
        ],
        axis=0,
    )
    confidence: Floats = np.array(AGREEMENT)[agreeing] * weeks
    return confidence


def _causes(certainties: dict[str, Floats], taken_down: Floats) -> list[str | None]:
    """The innocent cause that is surest, where one is sure and matters: who is no suspect needs no excuse."""
    names = [cause.name for cause in CAUSES]
    matrix = np.column_stack([certainties[name] for name in names])
    tells = (matrix.max(axis=1, initial=0) >= TOLD_FROM) & (taken_down >= TOLD_DIFFERENCE)
    return [names[cause] if told else None for cause, told in zip(matrix.argmax(axis=1), tells, strict=True)]


FEATURE_NAMES: Final = tuple(feature.name for feature in FEATURES)
