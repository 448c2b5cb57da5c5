"""How complete the newest day that is over is: readings that came over those that all meters at work should send."""

from datetime import date
from typing import Any, Final

import psycopg

MISSED_AFTER_DAYS: Final = 7  # a meter silent for longer counts as gone, not as missing

# A meter without any reading on the day has no row for it: what it should have sent is what it was to send before.
LATEST_DAY: Final = f"""
with newest as (
    select cast(max(last_timestamp + make_interval(mins => interval_minutes)) as date) - 1 as reading_date
    from raw_data.ingested_files
    where content = 'readings'
),
meters as (
    select
        days.meter_id,
        max(days.expected_reading_count) as expected,
        coalesce(sum(days.reading_count) filter (where days.reading_date = newest.reading_date), 0) as received
    from intermediate.int_readings_daily as days
    inner join newest
    on days.reading_date between newest.reading_date - {MISSED_AFTER_DAYS} and newest.reading_date
    group by days.meter_id
)
select
    newest.reading_date,
    count(*),
    count(*) filter (where meters.received = 0),
    cast(sum(meters.received) as bigint),
    cast(sum(greatest(meters.expected, meters.received)) as bigint)
from meters
cross join newest
group by newest.reading_date
"""


def read_latest_day(connection: psycopg.Connection) -> dict[str, Any] | None:
    """The newest day that is over: date, meters, silent_meters, readings, expected_readings; None without readings."""
    row = connection.execute(LATEST_DAY).fetchone()
    if row is None:
        return None
    day: date = row[0]
    names = ("meters", "silent_meters", "readings", "expected_readings")
    return {"date": day.isoformat(), **dict(zip(names, map(int, row[1:]), strict=True))}
