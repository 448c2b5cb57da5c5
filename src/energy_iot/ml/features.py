"""What the forest sees: the one home of the feature list.

Every feature compares a meter with its own habit, so that one forest serves a whole fleet. Over raw kWh a forest finds
big customers instead of odd readings; over ratios to the meter's own average it finds shops that close at night
instead of their odd nights. So each feature is put on the meter's own scale: how many of its usual spreads it is off
what is usual for this meter. No label is ever among them.

Left out on purpose: clock, calendar and weather. A forest isolates whatever lies at an edge, so such columns mark the
ordinary readings of a windy day and hide odd ones of a mild day; the z-score is against the same hour of the week
already. On a simulated fleet with planted faults they halved what was found above the threshold. Sub-meters enter as
their sum: which appliance runs is ordinary life, but how much of the main reading they account for is a balance.

The values are computed by PostgreSQL, beside the data; this module says how.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from energy_iot.errors import ModelError
from energy_iot.ml.config import FEATURE_TABLE

Matrix = npt.NDArray[np.float32]

# A reading without history, or without the data a feature needs, counts as usual for its meter.
NEUTRAL: Final = 0.0
# Ten spreads off is as odd as any more: the scale of the others is kept.
LIMIT: Final = 10.0

# When a meter's 24 h windows begin to be full: a day after its first reading; at once if a day is not even there.
FIRST_FULL_DAY: Final = "first_full_day"
_FIRST_FULL_DAY: Final = (
    "min(reading_timestamp) + case when max(reading_timestamp) - min(reading_timestamp) >= interval '1 day' "
    f"then interval '1 day' else interval '0 days' end as {FIRST_FULL_DAY}"
)


def _within(expression: str, low: float, high: float) -> str:
    # not least/greatest: these turn a null into a limit
    return f"case when {expression} < {low} then {low} when {expression} > {high} then {high} else {expression} end"


@dataclass(frozen=True)
class Feature:
    """One column of the matrix.

    Attributes:
        name: Its name in model cards.
        description: What it says about a reading.
        inputs: Columns of intermediate.int_consumption_features it is computed from.
        value: SQL over these, null where there is no value.
        least_spread: SQL for the smallest spread that is taken seriously, where `{usual}` is the meter's average: a
            meter that hardly varies is not odd for a hair's breadth. None where `value` is on the meter's own scale
            already.
        looks_back: Whether `value` is over the last 24 hours, and so means nothing within a meter's first day.
    """

    name: str
    description: str
    inputs: tuple[str, ...]
    value: str
    least_spread: str | None
    looks_back: bool = True

    @property
    def habit(self) -> tuple[str, ...]:
        """SQL of two columns over all readings of a meter: what is usual for it, and its spread; or of none."""
        if self.least_spread is None:
            return ()
        # rounded: the last digits of a sum follow the order of rows on disk
        usual = f"cast(round(cast(avg({self.name}) as numeric), 9) as double precision)"
        spread = f"cast(round(cast(stddev_pop({self.name}) as numeric), 9) as double precision)"
        least = self.least_spread.format(usual=usual)
        return f"{usual} as {self.name}_usual", f"nullif(greatest({spread}, {least}), 0) as {self.name}_spread"

    @property
    def relative(self) -> str:
        """SQL of the feature from its value and the meter's habit."""
        if self.least_spread is None:
            return self.name
        relative = f"({self.name} - {self.name}_usual) / {self.name}_spread"
        return f"case when reading_timestamp >= {FIRST_FULL_DAY} then {relative} end" if self.looks_back else relative

    def to_card(self) -> dict[str, Any]:
        """What a model card says about it."""
        return {
            "name": self.name,
            "description": self.description,
            "inputs": list(self.inputs),
            "value": self.value,
            "habit": list(self.habit),
            "relative": self.relative,
            "limit": LIMIT,
            "neutral": NEUTRAL,
        }


FEATURES: Final = (
    Feature(
        "ratio_24h",
        "consumption over the meter's 24 h average, on a log scale, 1/20 to 20; in the meter's own spreads",
        ("consumption_vs_avg_ratio",),
        f"ln({_within('consumption_vs_avg_ratio', 0.05, 20)})",
        "0.1",
    ),
    Feature(
        "hour_of_week",
        "standard deviations off the meter's history at this hour of the week, on a log scale: few earlier weeks make "
        "some of them huge",
        ("hour_of_week_z_score",),
        "sign(hour_of_week_z_score) * ln(1 + abs(hour_of_week_z_score))",
        None,
        looks_back=False,
    ),
    Feature(
        "spread_24h",
        "standard deviation over average of the last 24 h, on a log scale, 1/20 to 20: low for a stuck meter; in the "
        "meter's own spreads",
        ("std_consumption_24h", "avg_consumption_24h"),
        f"ln({_within('std_consumption_24h / nullif(avg_consumption_24h, 0)', 0.05, 20)})",
        "0.1",
    ),
    Feature(
        "level_24h",
        "average of the last 24 h, square root: low when part of the load goes past the meter; in the meter's own "
        "spreads",
        ("avg_consumption_24h",),
        "sqrt(case when avg_consumption_24h < 0 then 0 else avg_consumption_24h end)",
        "0.05 * {usual}",
    ),
    Feature(
        "submetered_share",
        "share of consumption that the sub-meters account for, 0 to 2: above 1 the main meter counts too little; in "
        "the meter's own spreads",
        ("sub1_ratio", "sub2_ratio", "sub3_ratio"),
        "case when coalesce(sub1_ratio, sub2_ratio, sub3_ratio) is not null then "
        + _within("coalesce(sub1_ratio, 0) + coalesce(sub2_ratio, 0) + coalesce(sub3_ratio, 0)", 0, 2)
        + " end",
        "0.1",
        looks_back=False,
    ),
)


INPUT_COLUMNS: Final = tuple(dict.fromkeys(column for feature in FEATURES for column in feature.inputs))


def habits_query() -> str:
    """SQL that gives each meter's habits, one row a meter.

    Also its `readings`, for each feature how many of them have a value (`ratio_24h_known`), and for each input column
    its sum (`consumption_vs_avg_ratio_sum`), which a single NaN or infinity makes NaN or infinite.
    """
    columns = [
        "meter_id",
        "count(*) as readings",
        *(f"count({feature.name}) as {feature.name}_known" for feature in FEATURES),
        *(f"sum({column}) as {column}_sum" for column in INPUT_COLUMNS),
        _FIRST_FULL_DAY,
        *(habit for feature in FEATURES for habit in feature.habit),
    ]
    return f"select {', '.join(columns)} from ({_values_query(FEATURES, INPUT_COLUMNS)}) as valued group by meter_id"


def features_query(features: Sequence[Feature], habits_table: str, *, also: Sequence[str] = (), rest: str = "") -> str:
    """SQL that gives reading_id, the columns `also`, and `features` as real numbers, null where they have no value.

    Args:
        features: Which, in order.
        habits_table: Where the result of `habits_query` is.
        also: meter_id, reading_timestamp, or both.
        rest: What follows, such as an order and a limit.
    """
    columns = ["reading_id", *also, *(f"cast({feature.relative} as real) as {feature.name}" for feature in features)]
    return (
        f"select {', '.join(columns)} from ({_values_query(features)}) as valued "
        f"inner join {habits_table} using (meter_id) {rest}"
    )


def _values_query(features: Sequence[Feature], also: Sequence[str] = ()) -> str:
    values = (f"{feature.value} as {feature.name}" for feature in features)
    return f"select {', '.join(['reading_id', 'meter_id', 'reading_timestamp', *also, *values])} from {FEATURE_TABLE}"


def features_of_card(entries: Sequence[Mapping[str, Any]]) -> tuple[Feature, ...]:
    """The inverse of `Feature.to_card`, in the card's order.

    Raises:
        ModelError: The card names a feature that this program does not compute, or computes otherwise.
    """
    known = {feature.name: feature for feature in FEATURES}
    unknown = [str(entry["name"]) for entry in entries if entry["name"] not in known]
    changed = [
        str(entry["name"])
        for entry in entries
        if entry["name"] in known and entry != known[entry["name"]].to_card() | {"description": entry["description"]}
    ]
    if unknown or changed:
        told = [f"unknown here: {', '.join(unknown)}"] * bool(unknown)
        told += [f"computed otherwise here: {', '.join(changed)}"] * bool(changed)
        raise ModelError(
            f"the model was made for other features ({'; '.join(told)})",
            fix="run `energy-iot train` for a model with this program's features",
        )
    return tuple(known[entry["name"]] for entry in entries)


def build_matrix(table: "pa.Table | pa.RecordBatch", features: Sequence[Feature]) -> Matrix:
    """The matrix for the forest: shape (n_readings, n_features), float32, within -`LIMIT` to `LIMIT`.

    `NEUTRAL` stands where a reading has no value.

    Args:
        table: Result of `features_query`.
        features: In the model's order.

    Example:
        >>> table = pa.table({"ratio_24h": [1.5, None], "level_24h": [-0.5, 99.0]})
        >>> build_matrix(table, [feature for feature in FEATURES if feature.name in table.column_names]).tolist()
        [[1.5, -0.5], [0.0, 10.0]]
    """
    matrix = np.empty((table.num_rows, len(features)), dtype=np.float32)
    for position, feature in enumerate(features):
        column: Any = table[feature.name].fill_null(NEUTRAL)
        matrix[:, position] = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(False)
    return np.clip(matrix, -LIMIT, LIMIT, out=matrix)
