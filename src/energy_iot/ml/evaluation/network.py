"""Direct taps: are the transformers that feed them at the top of the list of losses?"""

from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import numpy as np

from energy_iot.ml.evaluation.metrics import LOWEST, Ranking, budget_meters, levels_of, recall_at, roc_auc
from energy_iot.ml.evaluation.truth import Tap
from energy_iot.storage.postgres import Postgres

LOSSES_TABLE: Final = "marts.mart_losses"
BALANCE_TABLE: Final = "intermediate.int_energy_balance"
TRANSFORMER_TYPE: Final = "transformer"

NOTABLE_TAP_SHARE: Final = 0.05
"""Of a transformer's energy: smaller taps drown in the spread of technical losses and late reads."""
TOP_SHARE: Final = 0.10


@dataclass(frozen=True)
class TransformerMonth:
    """A transformer in the month that is judged.

    Attributes:
        node_id: The transformer.
        unexplained_share: Of the energy that flowed in; None where it is not known.
        energy_in_kwh: What flowed in.
        tapped_kwh: What direct taps took of it, by the truth.
    """

    node_id: str
    unexplained_share: float | None
    energy_in_kwh: float
    tapped_kwh: float

    @property
    def tap_share(self) -> float:
        """Of the energy that flowed in, what taps took."""
        return self.tapped_kwh / self.energy_in_kwh if self.energy_in_kwh > 0 else 0.0


@dataclass(frozen=True)
class TapFigures:
    """Transformers in order of their unexplained share.

    Attributes:
        transformers: How many are ranked.
        tapped: With a tap of any size.
        notable: With taps above 5 % of their energy.
        top: How many are in the top decile.
        notable_in_top: Of the notable, those in it, expected over ties.
        roc_auc: Notable against untapped ones; None where either is absent.
    """

    transformers: int
    tapped: int
    notable: int
    top: int
    notable_in_top: float
    roc_auc: float | None


def whole_month(first: date, last: date) -> date:
    """First day of the newest month that lies whole between two days; of the longest stretch of a month if none does.

    Example:
        >>> whole_month(date(2025, 1, 6), date(2025, 5, 5)), whole_month(date(2025, 1, 20), date(2025, 2, 25))
        (datetime.date(2025, 4, 1), datetime.date(2025, 2, 1))
    """
    month, days = last.replace(day=1), 0
    best = month
    while month + timedelta(days=monthrange(month.year, month.month)[1]) > first:
        end = month + timedelta(days=monthrange(month.year, month.month)[1] - 1)
        covered = (min(end, last) - max(month, first)).days + 1
        if covered == (end - month).days + 1:
            return month
        if covered > days:
            best, days = month, covered
        month = (month - timedelta(days=1)).replace(day=1)
    return best


def read_transformers(postgres: Postgres, taps: Sequence[Tap]) -> list[TransformerMonth]:
    """The transformers in the newest whole month of the balance; none without a registry."""
    with postgres.connect() as connection:
        span = connection.execute(
            f"select min(reading_date), max(reading_date) from {BALANCE_TABLE} where node_type = %s",
            (TRANSFORMER_TYPE,),
        ).fetchone()
        if span is None or span[0] is None:
            return []
        month = whole_month(*span)
        rows: list[tuple[Any, ...]] = connection.execute(
            f"select node_id, unexplained_share, energy_in_kwh from {LOSSES_TABLE} "
            "where node_type = %s and month_start = %s order by node_id",
            (TRANSFORMER_TYPE, month),
        ).fetchall()
    end_of_data = datetime.combine(span[1] + timedelta(days=1), datetime.min.time())
    tapped = tapped_in_month(taps, month, end_of_data)
    return [
        TransformerMonth(node, None if share is None else float(share), float(energy or 0), tapped.get(node, 0.0))
        for node, share, energy in rows
    ]


def tapped_in_month(taps: Sequence[Tap], month: date, end_of_data: datetime) -> Mapping[str, float]:
    """Energy that taps took in a month, kWh by transformer; a tap's energy is spread evenly over its time."""
    first = datetime.combine(month, datetime.min.time())
    after = first + timedelta(days=monthrange(month.year, month.month)[1])
    taken: dict[str, float] = {}
    for tap in taps:
        end = min(tap.end or end_of_data, end_of_data)
        within = (min(end, after) - max(tap.start, first)).total_seconds()
        if within > 0 and end > tap.start:
            share = within / (end - tap.start).total_seconds()
            taken[tap.node_id] = taken.get(tap.node_id, 0.0) + tap.stolen_kwh * share
    return taken


def judge_taps(transformers: Sequence[TransformerMonth]) -> TapFigures:
    """How well the unexplained share finds the transformers with notable taps.

    Transformers with a smaller tap keep their place in the list and are not judged.
    """
    if not transformers:
        return TapFigures(0, 0, 0, 0, 0.0, None)
    shares = [LOWEST if one.unexplained_share is None else one.unexplained_share for one in transformers]
    notable = np.array([one.tap_share > NOTABLE_TAP_SHARE for one in transformers])
    untapped = np.array([one.tapped_kwh <= 0 for one in transformers])
    ranking = Ranking(np.array(shares), notable, np.zeros(len(notable)), untapped)
    levels, top = levels_of(ranking, np.ones((1, len(notable)))), budget_meters(TOP_SHARE, len(notable))
    count = int(notable.sum())
    return TapFigures(
        transformers=len(transformers),
        tapped=int((~untapped).sum()),
        notable=count,
        top=top,
        notable_in_top=float(recall_at(levels, top).item() * count) if count else 0.0,
        roc_auc=float(roc_auc(levels).item()) if count and untapped.any() else None,
    )
