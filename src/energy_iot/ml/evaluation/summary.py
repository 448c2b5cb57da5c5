"""Figures over all fleets: their mean, each fleet's own, and how far chance alone would move them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from energy_iot.ml.evaluation.fleet_run import SUSPICION, FleetResult
from energy_iot.ml.evaluation.metrics import (
    BUDGETS,
    Floats,
    Ranking,
    bootstrap_weights,
    budget_meters,
    figures,
    inspected_shares,
    levels_of,
    point_figures,
)
from energy_iot.ml.evaluation.network import TapFigures, judge_taps
from energy_iot.ml.evaluation.truth import NOTHING

BOOTSTRAP_SAMPLES: Final = 1000
BOOTSTRAP_SEED: Final = 20_250_106
CONFIDENCE: Final = 0.95
SAMPLES_AT_ONCE: Final = 100  # of 10,000 meters: 8 MB an array
COMPARED_WITH: Final = "seeds' recipe"


@dataclass(frozen=True)
class Figure:
    """A figure and its 95 % interval.

    Attributes:
        value: Mean over fleets, or of all fleets' meters together.
        low: Lower end of the interval; None where no sample has a value.
        high: Upper end.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class KindFigures:
    """One kind of theft against all innocent meters, all fleets together.

    Attributes:
        kind: The kind.
        meters: How many meters steal like this.
        figures: Of the suspicion score, by name as in `metrics.figures`.
        roc_auc: By ranking.
    """

    kind: str
    meters: int
    figures: Mapping[str, Figure]
    roc_auc: Mapping[str, float | None]


@dataclass(frozen=True)
class CauseFigures:
    """False alarms by what happened to innocent meters, all fleets together.

    Attributes:
        cause: What happened.
        meters: To how many.
        alarms: Share of them inside the smaller budget, by ranking.
    """

    cause: str
    meters: int
    alarms: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """All figures of an evaluation.

    Attributes:
        rankings: By ranking and name of figure: mean over fleets.
        fleets: By seed, ranking and name of figure: each fleet's own.
        gain: ROC-AUC of the suspicion score less that of the seeds' recipe, mean over fleets.
        kinds: By kind of theft.
        causes: By innocent cause.
        taps: By seed, and of all fleets' transformers together.
        pooled_taps: All fleets' transformers in one list.
    """

    rankings: Mapping[str, Mapping[str, Figure]]
    fleets: Mapping[int, Mapping[str, Mapping[str, float]]]
    gain: Figure
    kinds: tuple[KindFigures, ...]
    causes: tuple[CauseFigures, ...]
    taps: Mapping[int, TapFigures]
    pooled_taps: TapFigures

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def summarise(fleets: Sequence[FleetResult]) -> Summary:
    """Judge all rankings on all fleets.

    Intervals are percentiles of 1,000 bootstrap samples: within each fleet, as many meters as it has are drawn with
    replacement, the same draws for every ranking. They say what another draw of customers would change, not what
    another city would: for that, look at the fleets one by one.
    """
    names = list(fleets[0].scores)
    resampled = {name: [_resampled(fleet, name, None) for fleet in fleets] for name in names}
    each = {
        fleet.plan.seed: {name: point_figures(fleet.truth.ranking(fleet.scores[name])) for name in names}
        for fleet in fleets
    }
    rankings = {
        name: {
            key: _figure(
                float(np.mean([each[seed][name][key] for seed in each])), _mean([one[key] for one in resampled[name]])
            )
            for key in resampled[name][0]
        }
        for name in names
    }
    gains = [
        own["roc_auc"] - other["roc_auc"]
        for own, other in zip(resampled[SUSPICION], resampled[COMPARED_WITH], strict=True)
    ]
    gain = float(np.mean([each[seed][SUSPICION]["roc_auc"] - each[seed][COMPARED_WITH]["roc_auc"] for seed in each]))
    return Summary(
        rankings=rankings,
        fleets=each,
        gain=_figure(gain, _mean(gains)),
        kinds=tuple(_kind_figures(fleets, kind) for kind in sorted({k for one in fleets for k in one.truth.kinds})),
        causes=tuple(_cause_figures(fleets, cause) for cause in _all_causes(fleets)),
        taps={fleet.plan.seed: judge_taps(fleet.transformers) for fleet in fleets},
        pooled_taps=judge_taps([one for fleet in fleets for one in fleet.transformers]),
    )


def _resampled(fleet: FleetResult, name: str, kind: str | None) -> dict[str, Floats]:
    """Bootstrap distributions of a ranking's figures on a fleet, each of shape (samples,)."""
    ranking = fleet.truth.ranking(fleet.scores[name], kind)
    parts = [figures(ranking, weights) for weights in _weights(fleet)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _weights(fleet: FleetResult) -> Iterator[Any]:
    """The draws of a fleet's meters, some samples at a time; the same for every ranking."""
    for part in range(0, BOOTSTRAP_SAMPLES, SAMPLES_AT_ONCE):
        samples = min(SAMPLES_AT_ONCE, BOOTSTRAP_SAMPLES - part)
        yield bootstrap_weights(len(fleet.truth.meter_ids), samples, seed=[BOOTSTRAP_SEED, fleet.plan.seed, part])


def _mean(values: Sequence[Floats]) -> Floats:
    """Mean over fleets, of those that have a value in a sample; NaN where none has."""
    return _weighted_mean(values, [np.ones_like(one) for one in values])


def _weighted_mean(values: Sequence[Floats], weights: Sequence[Floats]) -> Floats:
    stacked, weighing = np.stack(values), np.stack(weights)
    weighing = np.where(np.isnan(stacked), 0.0, weighing)
    total = weighing.sum(axis=0)
    summed = (np.nan_to_num(stacked) * weighing).sum(axis=0)
    mean: Floats = np.divide(summed, total, out=np.full_like(summed, np.nan), where=total > 0)
    return mean


def _figure(value: float, samples: Floats) -> Figure:
    known = samples[~np.isnan(samples)]
    ends = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist() if len(known) else (None, None)
    return Figure(None if np.isnan(value) else value, *ends)


def _kind_figures(fleets: Sequence[FleetResult], kind: str) -> KindFigures:
    """Each fleet's figures of a kind, weighted by what of this kind was drawn there: all its thieves count alike."""
    holding = [fleet for fleet in fleets if kind in fleet.truth.kinds]

    def combine(name: str, weightings: Sequence[list[Any]]) -> dict[str, Floats]:
        found: dict[str, list[Floats]] = {}
        weights: dict[str, list[Floats]] = {}
        for fleet, weighting in zip(holding, weightings, strict=True):
            ranking = fleet.truth.ranking(fleet.scores[name], kind)
            thieves = np.concatenate([(part * ranking.is_theft).sum(axis=1) for part in weighting])
            stolen = np.concatenate([(part * ranking.stolen_kwh).sum(axis=1) for part in weighting])
            parts = [figures(ranking, part) for part in weighting]
            for key in parts[0]:
                found.setdefault(key, []).append(np.concatenate([part[key] for part in parts]))
                weights.setdefault(key, []).append(stolen if key.startswith("stolen") else thieves)
        return {key: _weighted_mean(values, weights[key]) for key, values in found.items()}

    once = [[np.ones((1, len(fleet.truth.meter_ids)))] for fleet in holding]
    samples = combine(SUSPICION, [list(_weights(fleet)) for fleet in holding])
    points = {name: combine(name, once) for name in fleets[0].scores}
    precise = {key for key in samples if key.startswith("precision")}  # the other kinds stand among the first too
    return KindFigures(
        kind,
        sum(list(fleet.truth.theft_kinds.values()).count(kind) for fleet in fleets),
        {key: _figure(points[SUSPICION][key].item(), samples[key]) for key in samples if key not in precise},
        {name: _figure(found["roc_auc"].item(), found["roc_auc"]).value for name, found in points.items()},
    )


def _all_causes(fleets: Sequence[FleetResult]) -> list[str]:
    """All innocent causes, nothing at all first."""
    return [NOTHING, *sorted({cause for fleet in fleets for cause in fleet.truth.causes} - {NOTHING})]


def _cause_figures(fleets: Sequence[FleetResult], cause: str) -> CauseFigures:
    touched = [
        np.array([cause in fleet.truth.causes_of(meter) for meter in fleet.truth.meter_ids], dtype=np.float64)
        for fleet in fleets
    ]
    meters = int(sum(one.sum() for one in touched))

    def alarms(name: str) -> float:
        inspected = sum(
            float(inspection_chances(fleet.truth.ranking(fleet.scores[name]), BUDGETS[0]) @ one)
            for fleet, one in zip(fleets, touched, strict=True)
        )
        return inspected / meters if meters else 0.0

    return CauseFigures(cause, meters, {name: alarms(name) for name in fleets[0].scores})


def inspection_chances(ranking: Ranking, budget: float) -> Floats:
    """Chance of each meter to be inspected when crews take this share of the list from its top; shape (meters,).

    One or nothing, but for meters tied at the end of the budget.
    """
    levels = levels_of(ranking, np.ones((1, len(ranking.scores))))
    shares = inspected_shares(levels, budget_meters(budget, len(ranking.scores)))[0]
    chances: Floats = shares[np.unique(-ranking.scores, return_inverse=True)[1]]
    return chances
