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
from energy_iot.ml.config import FEATURE_DAYS_TABLE, FEATURE_TABLE, MIN_WINDOW_HOURS

Matrix = npt.NDArray[np.float32]

# A reading without history, or without the data a feature needs, counts as usual for its meter.
NEUTRAL: Final = 0.0
# Ten spreads off is as odd as any more: the scale of the others is kept.
LIMIT: Final = 10.0

# Habits are made of values in millionths, as integers: sums of integers are exact, whatever the order of rows.
PARTS: Final = "1e6"
# The root of the largest average that is told from larger ones, 9 GWh in one interval: its square in millionths still
# is a bigint.
MAX_LEVEL: Final = 3000

WINDOW_HOURS_COLUMN: Final = "window_hours_24h"


def _within(expression: str, low: float, high: float) -> str:
    # not least/greatest: these turn a null into a limit
    return f"case when {expression} < {low} then {low} when {expression} > {high} then {high} else {expression} end"


@dataclass(frozen=True)
class Feature:
    """One column of the matrix.

    Attributes:
        name: Its name in model cards.
        description: What it says about a reading.
        columns: Columns of intermediate.int_consumption_features that `formula` is computed from.
        formula: SQL over these, null where there is no value.
        least_spread: SQL for the smallest spread that is taken seriously, where `{usual}` is the meter's average: a
            meter that hardly varies is not odd for a hair's breadth. None where `formula` is on the meter's own scale
            already.
        looks_back: Whether `formula` is over the last 24 hours, and so means nothing until most of these are there.
    """

    name: str
    description: str
    columns: tuple[str, ...]
    formula: str
    least_spread: str | None
    looks_back: bool = True

    @property
    def inputs(self) -> tuple[str, ...]:
        """All columns of intermediate.int_consumption_features it needs."""
        return (*self.columns, WINDOW_HOURS_COLUMN) if self.looks_back else self.columns

    @property
    def value(self) -> str:
        """SQL of the value of a reading; in millionths, as a bigint, where the meter has a habit to compare it with."""
        value = f"cast(round({PARTS} * ({self.formula})) as bigint)" if self.least_spread else self.formula
        return f"case when {WINDOW_HOURS_COLUMN} >= {MIN_WINDOW_HOURS} then {value} end" if self.looks_back else value

    @property
    def sums(self) -> dict[str, str]:
        """Names and SQL of what ml.feature_days keeps of it: exact, so that days can be added up in any order."""
        sums = {f"{self.name}_known": f"count({self.name})"}
        if self.least_spread is not None:
            sums[f"{self.name}_sum"] = f"sum({self.name})"
            sums[f"{self.name}_squares"] = f"sum({self.name} * {self.name})"
        return sums

    @property
    def habit(self) -> tuple[str, ...]:
        """SQL of two columns over sums of days: what is usual for the meter, and its spread; or of none."""
        if self.least_spread is None:
            return ()
        known, total, squares = self.sums
        usual = f"cast({total} as double precision) / nullif({known}, 0) / {PARTS}"
        # numerics, so that nothing is lost where two large numbers nearly cancel
        variance = f"cast({known} * {squares} - {total} * {total} as double precision)"
        spread = f"sqrt({variance}) / nullif({known}, 0) / {PARTS}"
        least = self.least_spread.format(usual=usual)
        return f"{usual} as {self.name}_usual", f"nullif(greatest({spread}, {least}), 0) as {self.name}_spread"

    @property
    def relative(self) -> str:
        """SQL of the feature from its value and the meter's habit."""
        if self.least_spread is None:
            return self.name
        return f"(cast({self.name} as double precision) / {PARTS} - {self.name}_usual) / {self.name}_spread"

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
        f"sqrt({_within('avg_consumption_24h', 0, MAX_LEVEL**2)})",
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


def feature_days_query(days_table: str | None = None) -> str:
    """SQL of ml.feature_days, a row for each meter and day with readings.

    Also the largest size of each input column (`consumption_vs_avg_ratio_size`), which a single NaN or infinity makes
    NaN or infinite.

    Args:
        days_table: A table of (meter_id, reading_date): only these days.
    """
    columns = [
        "meter_id",
        "reading_date",
        "count(*) as readings",
        *(f"{sql} as {name}" for feature in FEATURES for name, sql in feature.sums.items()),
        *(f"max(abs({column})) as {column}_size" for column in INPUT_COLUMNS),
    ]
    return (
        f"select {', '.join(columns)} from ({_values_query(FEATURES, INPUT_COLUMNS, days_table)}) as valued "
        "group by meter_id, reading_date"
    )


FEATURE_DAYS_COLUMNS: Final = (
    "meter_id",
    "reading_date",
    "readings",
    *(name for feature in FEATURES for name in feature.sums),
)


def habits_query(history_days: int, days_table: str | None = None) -> str:
    """SQL that gives each meter's habits on each day: over that day and those before it, `history_days` in all.

    Args:
        history_days: How many.
        days_table: A table of (meter_id, reading_date): at least these days.
    """
    summed = [f"sum({name}) over look_back as {name}" for feature in FEATURES if feature.habit for name in feature.sums]
    habits = [habit for feature in FEATURES for habit in feature.habit]
    days = FEATURE_DAYS_TABLE
    if days_table is not None:
        days = rows_of_spans(FEATURE_DAYS_TABLE, days_table, days_before=history_days - 1)
    return (
        f"select meter_id, reading_date, {', '.join(habits)} "
        f"from (select meter_id, reading_date, {', '.join(summed)} from {days} as days window look_back as "
        "(partition by meter_id order by reading_date "
        f"range between interval '{history_days - 1} days' preceding and current row)) as looked_back"
    )


def features_query(
    features: Sequence[Feature], habits_table: str, *, days_table: str | None = None, rest: str = ""
) -> str:
    """SQL that gives reading_id, meter_id, reading_timestamp, and `features` as real numbers, null without a value.

    Args:
        features: Which, in order.
        habits_table: Where the result of `habits_query` is.
        days_table: A table of (meter_id, reading_date): only the readings of these days.
        rest: What follows, such as an order and a limit.
    """
    relative = (f"cast({feature.relative} as real) as {feature.name}" for feature in features)
    return (
        f"select reading_id, meter_id, reading_timestamp, {', '.join(relative)} "
        f"from ({_values_query(features, (), days_table)}) as valued "
        f"inner join {habits_table} using (meter_id, reading_date) {rest}"
    )


def _values_query(features: Sequence[Feature], also: Sequence[str], days_table: str | None) -> str:
    columns = [
        "reading_id",
        "meter_id",
        "reading_timestamp",
        "cast(reading_timestamp as date) as reading_date",
        *also,
        *(f"{feature.value} as {feature.name}" for feature in features),
    ]
    readings = FEATURE_TABLE
    if days_table is not None:
        readings = rows_of_days(FEATURE_TABLE, "cast(reading_timestamp as date)", days_table)
    return f"select {', '.join(columns)} from {readings} as readings"


def rows_of_days(table: str, day: str, days_table: str, columns: str = "*") -> str:
    """SQL of the rows of `table` that lie on days of `days_table`; `day` is SQL of a row's day, as the index has it.

    Days are looked up one by one: OFFSET 0 keeps the planner from joining in any other way, so that statistics of
    yesterday cannot lead it to read the whole history.
    """
    return (
        f"(select found.* from {days_table} as days cross join lateral (select {columns} from {table} as candidates "
        f"where candidates.meter_id = days.meter_id and {day} = days.reading_date offset 0) as found)"
    )


def rows_of_spans(table: str, days_table: str, *, days_before: int = 0, days_after: int = 0) -> str:
    """SQL of the rows of `table` that lie up to so many days before or after a day of `days_table`, each once.

    Days in a row are one look-up, not many.
    """
    apart = days_before + days_after + 1
    return (
        "(select found.* from (select meter_id, min(reading_date) as first_day, max(reading_date) as last_day from "
        "(select *, count(*) filter (where starts) over (partition by meter_id order by reading_date) as span from "
        f"(select *, lag(reading_date) over (partition by meter_id order by reading_date) + {apart} < reading_date "
        f"is not false as starts from {days_table} as days) as marked) as numbered group by meter_id, span) as spans "
        f"cross join lateral (select * from {table} as candidates where candidates.meter_id = spans.meter_id "
        f"and candidates.reading_date between spans.first_day - {days_before} and spans.last_day + {days_after} "
        "offset 0) as found)"
    )


def definitions() -> list[str]:
    """All the SQL above, for the fingerprint of what follows from it."""
    return [feature_days_query(), habits_query(1), features_query(FEATURES, "habits")]


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
            fix="run `energy-iot train` for a model with this program's features, then `energy-iot run --rescore all` "
            "to put it into force",
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
