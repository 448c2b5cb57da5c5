"""Completeness of the newest day that is over: of meters at work, silent ones included."""

from datetime import datetime
from typing import Any

import pytest

from energy_iot.storage.postgres import Postgres
from energy_iot.transformation.latest_day import read_latest_day

DAYS = [  # meter, day of January 2026, readings, expected
    ("steady", 8, 48, 48),
    ("steady", 9, 48, 48),
    ("steady", 10, 10, 48),
    ("gaps", 9, 36, 48),
    ("hourly", 9, 24, 24),
    ("silent", 3, 48, 48),
    ("gone", 1, 48, 48),
]


def latest_day(postgres: Postgres, last: datetime | None) -> dict[str, Any] | None:
    with postgres.connect() as connection:
        connection.execute(
            "create table intermediate.int_readings_daily "
            "(meter_id text, reading_date date, reading_count bigint, expected_reading_count bigint)"
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into intermediate.int_readings_daily values (%s, make_date(2026, 1, %s), %s, %s)", DAYS
            )
        connection.execute(
            "insert into raw_data.ingested_files (sha256, file_name, source_name, interval_minutes, size_bytes, "
            "lines_read, readings_loaded, readings_without_consumption, readings_rejected, last_timestamp, run_id) "
            "values ('0', 'f', 's', 30, 1, 1, 1, 0, 0, %s, 'r')",
            (last,),
        )
        return read_latest_day(connection)


@pytest.mark.parametrize("last", [datetime(2026, 1, 9, 23, 30), datetime(2026, 1, 10, 4, 30)])
def test_it_is_the_newest_day_that_is_over(postgres: Postgres, last: datetime) -> None:
    """The tenth has only begun; who was silent for longer than a week is gone."""
    assert latest_day(postgres, last) == {
        "date": "2026-01-09",
        "meters": 4,
        "silent_meters": 1,
        "readings": 48 + 36 + 24,
        "expected_readings": 48 + 48 + 24 + 48,
    }


def test_without_readings_there_is_none(postgres: Postgres) -> None:
    assert latest_day(postgres, None) is None
