"""What the last runs did, and what the stores hold now."""

from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from energy_iot.errors import StorageError
from energy_iot.settings import Settings
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import open_postgres
from energy_iot.storage.run_lock import lock_holder

COUNTS = {
    "raw": ("raw_data.meter_readings", ""),
    "rejected": ("raw_data.rejected_readings", ""),
    "staging": ("staging.stg_meter_readings", ""),
    "scores": ("marts.mart_anomaly_scores", ""),
    "anomalies": ("marts.mart_anomaly_scores", "where is_anomaly"),
}


def read_status(settings: Settings) -> dict[str, Any]:
    """The last run with its steps, and the rows in each store, as `energy-iot status --json` prints them.

    Returns:
        {"run": {id, status, started, seconds, error, package_version, model_version} or None,
        "holder": who writes now, or None,
        "steps": [{name, status, seconds, attempts, rows_in, rows_out, mode, warnings, error}],
        "rows": {raw, rejected, staging, scores, anomalies, "clickhouse": {table: rows}}}.
        A table that is not there yet has 0 rows; "clickhouse" is None while another process holds the embedded folder.
    """
    with open_postgres(settings) as postgres, postgres.connect() as connection:
        holder = lock_holder(postgres)
        runs = read_runs(connection, last=1, somebody_runs=holder is not None)
        steps = read_steps(connection, runs[0]["id"]) if runs else []
        rows: dict[str, Any] = {
            name: _count(connection, table, condition) for name, (table, condition) in COUNTS.items()
        }
    return {
        "run": runs[0] if runs else None,
        "holder": str(holder) if holder else None,
        "steps": steps,
        "rows": rows | {"clickhouse": clickhouse_rows(settings)},
    }


def read_runs(connection: psycopg.Connection, *, last: int, somebody_runs: bool = True) -> list[dict[str, Any]]:
    """The last runs, newest first, as in `read_status`; started is ISO, UTC, seconds None while running.

    A run that is recorded as running while nobody runs (`somebody_runs` is false) was killed.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "select run_id as id, status, started_at, ended_at, error, package_version, model_version "
            "from quality.pipeline_runs order by started_at desc, run_id desc limit %s",
            (last,),
        )
        return [
            {
                "id": run["id"],
                "status": run["status"] if somebody_runs or run["status"] != "running" else "interrupted",
                "started": run["started_at"].isoformat(timespec="seconds") + "Z",
                "seconds": _seconds(run["started_at"], run["ended_at"]),
                "error": run["error"],
                "package_version": run["package_version"],
                "model_version": run["model_version"],
            }
            for run in cursor
        ]


def read_steps(connection: psycopg.Connection, run_id: str) -> list[dict[str, Any]]:
    """The steps of a run in the order they started."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "select step, status, started_at, ended_at, attempts, rows_in, rows_out, details ->> 'mode' as mode, "
            "warnings, error from quality.step_runs where run_id = %s order by id",
            (run_id,),
        )
        return [
            {
                "name": step["step"],
                "status": step["status"],
                "seconds": _seconds(step["started_at"], step["ended_at"]),
                "attempts": step["attempts"],
                "rows_in": step["rows_in"],
                "rows_out": step["rows_out"],
                "mode": step["mode"],
                "warnings": step["warnings"],
                "error": step["error"],
            }
            for step in cursor
        ]


def _seconds(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else round((end - start).total_seconds(), 3)


def _count(connection: psycopg.Connection, table: str, condition: str) -> int:
    exists = connection.execute("select to_regclass(%s)", (table,)).fetchone()
    if exists is None or exists[0] is None:
        return 0
    found = connection.execute(f"select count(*) from {table} {condition}").fetchone()
    return int(found[0]) if found else 0


def read_loaded_rows(settings: Settings) -> dict[str, Any]:
    """What was loaded and what is published, from what is counted already: whole tables are not read."""
    with open_postgres(settings) as postgres, postgres.connect() as connection:
        row = connection.execute(
            "select coalesce(sum(readings_loaded), 0)::bigint, coalesce(sum(readings_rejected), 0)::bigint "
            "from raw_data.ingested_files"
        ).fetchone()
    assert row is not None
    return {"raw": row[0], "rejected": row[1], "clickhouse": clickhouse_rows(settings)}


def clickhouse_rows(settings: Settings) -> dict[str, int] | None:
    """Rows of each published table; None while another process holds the embedded folder."""
    try:
        with open_clickhouse(settings) as clickhouse:
            tables = clickhouse.query(
                "select name, total_rows from system.tables where database = currentDatabase() "
                "and name not like '%\\_incoming' order by name"
            ).result_rows
    except StorageError:
        if settings.clickhouse_url is not None:
            raise
        return None
    return {name: int(rows or 0) for name, rows in tables}
