"""ml.feature_days: what the habits of meters are made of.

It has a row for each meter and day with readings: how many, and the exact sums of their feature values. A day's row
follows from the readings of that day alone, and the habit of a day from the rows of the days before it and its own; so
a change reaches no further than the days after it that look back on it.
"""

import math
from typing import Any, Final

from energy_iot.errors import ModelError
from energy_iot.ml.config import FEATURE_DAYS_TABLE, FEATURE_TABLE
from energy_iot.ml.features import (
    FEATURE_DAYS_COLUMNS,
    FEATURES,
    INPUT_COLUMNS,
    feature_days_query,
    habits_query,
    rows_of_days,
    rows_of_spans,
)
from energy_iot.ml.versions import Survey
from energy_iot.storage.changes import changed_days_query

# Temporary tables, of one transaction.
CHANGED_TABLE: Final = "changed_days_of_meters"
REVALUED_TABLE: Final = "days_with_other_values"
NEW_ROWS_TABLE: Final = "new_feature_days"
HABITS_TABLE: Final = "habits_of_meters"


def rebuild_feature_days(cursor: Any) -> None:
    """Make the table anew from all readings.

    Raises:
        ModelError: An input column holds values that are no numbers.
    """
    _make_new_rows(cursor, None)
    columns = ", ".join(FEATURE_DAYS_COLUMNS)
    cursor.execute(f"drop table if exists {FEATURE_DAYS_TABLE}")
    cursor.execute(f"create table {FEATURE_DAYS_TABLE} as select {columns} from {NEW_ROWS_TABLE}")
    cursor.execute(f"alter table {FEATURE_DAYS_TABLE} add primary key (meter_id, reading_date)")
    cursor.execute(f"analyze {FEATURE_DAYS_TABLE}")


def update_feature_days(cursor: Any, since: int, *, history_days: int) -> int:
    """Bring the table up to date with the changes after number `since`; returns how many days of meters changed.

    Feature values look back `history_days`, so those of as many days after a change are other ones.

    Raises:
        ModelError: An input column holds values that are no numbers.
    """
    _create(cursor, CHANGED_TABLE, changed_days_query(since))
    _create(cursor, REVALUED_TABLE, days_after_changes(history_days))
    _make_new_rows(cursor, REVALUED_TABLE)
    columns = ", ".join(FEATURE_DAYS_COLUMNS)
    delete_days(cursor, FEATURE_DAYS_TABLE, "reading_date", REVALUED_TABLE)
    cursor.execute(f"insert into {FEATURE_DAYS_TABLE} ({columns}) select {columns} from {NEW_ROWS_TABLE}")
    cursor.execute(f"select count(*) from {CHANGED_TABLE}")
    return int(cursor.fetchone()[0])


def days_after_changes(reach_days: int) -> str:
    """SQL of the changed days, and of those with readings up to `reach_days` after one, as (meter_id, reading_date).

    The table itself says which days have readings: those it has rows for, and changed ones.
    """
    rows = rows_of_spans(FEATURE_DAYS_TABLE, CHANGED_TABLE, days_after=reach_days)
    return f"select meter_id, reading_date from {rows} as days union select meter_id, reading_date from {CHANGED_TABLE}"


def make_days(cursor: Any, name: str, query: str) -> int:
    """Keep the days that `query` gives in a temporary table; returns how many readings they hold."""
    _create(cursor, name, query)
    rows = rows_of_days(FEATURE_DAYS_TABLE, "reading_date", name)
    cursor.execute(f"select cast(coalesce(sum(readings), 0) as bigint) from {rows} as days")
    return int(cursor.fetchone()[0])


def delete_days(cursor: Any, table: str, day: str, days_table: str, where: str = "true") -> None:
    """Delete the rows of `table` that lie on days of `days_table`; see `rows_of_days`."""
    rows = rows_of_days(table, day, days_table, columns="candidates.ctid as place, candidates.*")
    cursor.execute(f"delete from {table} where ctid = any(array(select place from {rows} as found where {where}))")


def make_habits(cursor: Any, *, history_days: int, days_table: str | None = None) -> None:
    """Work out the habits of meters on all days, or at least on those in `days_table`."""
    cursor.execute(f"drop table if exists {HABITS_TABLE}")
    _create(cursor, HABITS_TABLE, habits_query(history_days, days_table))


def survey_days(cursor: Any) -> Survey:
    """What the feature table holds."""
    names = ["readings", *(f"{feature.name}_known" for feature in FEATURES)]
    sums = ", ".join(f"cast(coalesce(sum({name}), 0) as bigint) as {name}" for name in names)
    cursor.execute(f"select {sums} from {FEATURE_DAYS_TABLE}")
    (found,) = cursor.fetch_arrow_table().to_pylist()
    return Survey(found["readings"], {feature.name: found[f"{feature.name}_known"] for feature in FEATURES})


def _make_new_rows(cursor: Any, days_table: str | None) -> None:
    # along the table's index a day's sums are ready before the next one's begin; a hash would hold those of all days
    cursor.execute("set local enable_hashagg = off")
    _create(cursor, NEW_ROWS_TABLE, feature_days_query(days_table))
    # one NaN or infinity makes the largest size so, and a forest would take it without a word
    sizes = ", ".join(f"max({name}_size) as {name}" for name in INPUT_COLUMNS)
    cursor.execute(f"select {sizes} from {NEW_ROWS_TABLE}")
    (found,) = cursor.fetch_arrow_table().to_pylist()
    broken = [name for name, size in found.items() if size is not None and not math.isfinite(size)]
    if broken:
        raise ModelError(
            f"{FEATURE_TABLE} holds NaN or infinity in {', '.join(broken)}",
            fix="remove such readings at the source; `energy-iot validate staging` shows where they are",
        )


def _create(cursor: Any, name: str, query: str) -> None:
    cursor.execute(f"create temp table {name} on commit drop as {query}")
    cursor.execute(f"analyze {name}")  # nothing else tells the planner how large it is
