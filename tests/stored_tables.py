"""What the stores hold, as frames that can be compared: all derived tables, run timestamps aside."""

import polars as pl

from energy_iot.settings import Settings
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import open_postgres

DERIVED_SCHEMAS = ("staging", "intermediate", "ml", "marts")
RUN_TIMESTAMPS = {"scored_at", "ranked_at"}
NOT_DERIVED = {"ml.model_versions"}  # made by trainings, and what the scores are derived with


def derived_tables(settings: Settings) -> dict[str, pl.DataFrame]:
    """Every derived table of both stores by its name, as texts; columns sorted."""
    tables: dict[str, pl.DataFrame] = {}
    with open_postgres(settings) as postgres, postgres.connect() as connection:
        names = connection.execute(
            "select table_schema || '.' || table_name from information_schema.tables "
            "where table_schema = any(%s) order by 1",
            (list(DERIVED_SCHEMAS),),
        ).fetchall()
        for (name,) in names:
            if name not in NOT_DERIVED:
                cursor = connection.execute(f"select * from {name}")
                columns = [column.name for column in cursor.description or ()]
                tables[name] = _frame(columns, cursor.fetchall())
    with open_clickhouse(settings) as clickhouse:
        for (name,) in clickhouse.query(
            "select name from system.tables where database = currentDatabase()"
        ).result_rows:
            answer = clickhouse.query(f"select * from {name}")
            tables[f"clickhouse.{name}"] = _frame(list(answer.column_names), list(answer.result_rows))
    assert "marts.mart_anomaly_scores" in tables
    assert "clickhouse.anomaly_scores" in tables
    return tables


def _frame(columns: list[str], rows: list[tuple[object, ...]]) -> pl.DataFrame:
    # as texts: repr shows all digits of a double, and tells 0.0 from -0.0 and numeric from double
    texts = [tuple(None if value is None else repr(value) for value in row) for row in rows]
    frame = pl.DataFrame(texts, schema=dict.fromkeys(columns, pl.String), orient="row")
    return frame.select(sorted(set(columns) - RUN_TIMESTAMPS))


def differences(
    left: dict[str, pl.DataFrame], right: dict[str, pl.DataFrame], *, leave_out: frozenset[str] = frozenset()
) -> dict[str, str]:
    """For each table that differs in more than the columns `leave_out`, what is on one side only."""
    found = dict.fromkeys(left.keys() ^ right.keys(), "on one side only")
    for name in sorted(left.keys() & right.keys()):
        mine, other = (frame.drop(leave_out & set(frame.columns)).sort(pl.all()) for frame in (left[name], right[name]))
        if mine.columns != other.columns:
            found[name] = f"columns {mine.columns} and {other.columns}"
        elif not mine.equals(other):
            only_mine = mine.join(other, on=mine.columns, how="anti", nulls_equal=True)
            only_other = other.join(mine, on=mine.columns, how="anti", nulls_equal=True)
            with pl.Config(tbl_cols=-1, fmt_str_lengths=40, tbl_width_chars=250):
                found[name] = (
                    f"{mine.height} and {other.height} rows; first only: {only_mine.height}\n{only_mine.head(3)}\n"
                    f"second only: {only_other.height}\n{only_other.head(3)}"
                )
    return found
