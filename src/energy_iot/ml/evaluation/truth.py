"""What is true of a generated fleet: read by the evaluation only, never by the pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from energy_iot.errors import InputFileError
from energy_iot.ml.evaluation.metrics import LOWEST, Ranking

METER: Final = "meter"
TRANSFORMER: Final = "transformer"
NOTHING: Final = "nothing happened"

SCHEMA: Final = {
    "subject_id": pl.String,
    "subject_type": pl.String,
    "kind": pl.String,
    "is_theft": pl.Boolean,
    "start_time": pl.Datetime,
    "end_time": pl.Datetime,
    "stolen_kwh": pl.Float64,
}


@dataclass(frozen=True)
class Tap:
    """A direct tap at a transformer, which no meter sees.

    Attributes:
        node_id: The transformer.
        start: First instant of it, UTC.
        end: First instant without it; None to the end of the data.
        stolen_kwh: In all.
    """

    node_id: str
    start: datetime
    end: datetime | None
    stolen_kwh: float


@dataclass(frozen=True)
class FleetTruth:
    """What is true of each meter of a fleet.

    Attributes:
        meter_ids: All meters, in order.
        theft_kinds: Kind of theft by meter, of the one that took most; thieves only.
        stolen_kwh: By thief; 0 where falsified readings happen to show more than was consumed.
        innocent_causes: What happened to meters that steal nothing, by meter; those only that something happened to.
        taps: At transformers.
    """

    meter_ids: tuple[str, ...]
    theft_kinds: Mapping[str, str]
    stolen_kwh: Mapping[str, float]
    innocent_causes: Mapping[str, frozenset[str]]
    taps: tuple[Tap, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of theft at meters, in order."""
        return tuple(sorted(set(self.theft_kinds.values())))

    @property
    def causes(self) -> tuple[str, ...]:
        """What happened to innocent meters, in order; the first is that nothing did."""
        return (NOTHING, *sorted({cause for causes in self.innocent_causes.values() for cause in causes}))

    def ranking(self, scores: Mapping[str, float], kind: str | None = None) -> Ranking:
        """These scores beside the truth; a meter without a score is last.

        Args:
            scores: By meter.
            kind: Only this kind of theft counts as one, against all innocent meters; None for any.
        """
        thief = np.array([meter in self.theft_kinds for meter in self.meter_ids])
        wanted = np.array([self.theft_kinds.get(meter) in ({kind} if kind else self.kinds) for meter in self.meter_ids])
        stolen = np.array([self.stolen_kwh.get(meter, 0.0) for meter in self.meter_ids])
        return Ranking(
            np.array([scores.get(meter, LOWEST) for meter in self.meter_ids], dtype=np.float64),
            wanted,
            np.where(wanted, stolen, 0.0),
            ~thief,
        )

    def perfect_scores(self) -> dict[str, float]:
        """What nobody can do better: all thieves first, those who steal most before the others."""
        return {
            meter: 1 + self.stolen_kwh.get(meter, 0.0) if meter in self.theft_kinds else 0 for meter in self.meter_ids
        }

    def causes_of(self, meter: str) -> frozenset[str]:
        """What happened to a meter: `NOTHING` where nothing did, no cause at all for a thief."""
        if meter in self.theft_kinds:
            return frozenset()
        return self.innocent_causes.get(meter, frozenset({NOTHING}))


def read_truth(file: Path, meter_ids: Sequence[str]) -> FleetTruth:
    """The truth of a generated fleet.

    Args:
        file: Its `truth.csv`: subject_id, subject_type, kind, is_theft, start_time, end_time, stolen_kwh.
        meter_ids: All meters of the fleet, those included that nothing happened to.

    Raises:
        InputFileError: It cannot be read, or tells of meters that are none of these.
    """
    try:
        frame = pl.read_csv(file, schema_overrides=SCHEMA).select(*SCHEMA)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputFileError(
            f"{file} is no truth of a generated fleet ({error})", fix="generate the fleet again: energy-iot generate"
        ) from error
    meters = frame.filter(pl.col("subject_type") == METER)
    unknown = set(meters["subject_id"]) - set(meter_ids)
    if unknown:
        raise InputFileError(
            f"{file} tells of {len(unknown)} meters that are not in the fleet, such as {min(unknown)}",
            fix="generate the fleet again: energy-iot generate",
        )
    thefts = meters.filter("is_theft").sort("subject_id", "stolen_kwh", "kind")
    by_thief = thefts.group_by("subject_id", maintain_order=True)
    thieves = by_thief.agg(pl.col("kind").last(), pl.col("stolen_kwh").sum().clip(0))
    innocent = (
        meters.filter(~pl.col("is_theft") & ~pl.col("subject_id").is_in(thieves["subject_id"].to_list()))
        .group_by("subject_id")
        .agg(pl.col("kind").unique())
    )
    taps = frame.filter((pl.col("subject_type") == TRANSFORMER) & pl.col("is_theft")).sort("subject_id", "start_time")
    return FleetTruth(
        tuple(sorted(meter_ids)),
        dict(zip(thieves["subject_id"], thieves["kind"], strict=True)),
        dict(zip(thieves["subject_id"], thieves["stolen_kwh"], strict=True)),
        {row["subject_id"]: frozenset(row["kind"]) for row in innocent.iter_rows(named=True)},
        tuple(
            Tap(row["subject_id"], row["start_time"], row["end_time"], row["stolen_kwh"])
            for row in taps.iter_rows(named=True)
        ),
    )
