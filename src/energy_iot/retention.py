"""How long the records of runs are kept; what readings, scores or reports need stays.

Beside pipeline.py, which writes these records: they belong to no step and to no single store's code.
"""

import logging
from typing import Final

from energy_iot.errors import StorageError
from energy_iot.settings import Settings
from energy_iot.storage.changes import remove_followed_days
from energy_iot.storage.postgres import open_postgres

RUNS_REMOVED_AT_ONCE: Final = 1000  # the oldest first: a long pause costs the next nights a little each

# What is looked up by a later run, a step or the report, however old it is:
NEEDED_RUNS: Final = """
    -- the last complete run: whether anything has to be done at all
    (
        select run_id from quality.pipeline_runs
        where state_fingerprint is not null order by ended_at desc limit 1
    )
    union
    -- the latest success of each step: its figures
    select run_id from quality.step_runs
    where id in (select max(id) from quality.step_runs where status = 'succeeded' group by step)
    union
    -- the latest judgement of each suite
    select run_id from quality.validation_results
    where id in (select max(id) from quality.validation_results group by suite)
"""

OLD_RUNS: Final = f"""
select run_id
from quality.pipeline_runs
where
    started_at < now() at time zone 'utc' - make_interval(days => %s)
    and status <> 'running'
    and run_id not in ({NEEDED_RUNS})
order by started_at, run_id
limit {RUNS_REMOVED_AT_ONCE}
"""

log = logging.getLogger(__name__)


def remove_old_records(settings: Settings) -> int:
    """Remove the records of runs older than `settings.keep_runs_days`, and changed days that all have followed.

    raw_data.changes stays: it is the audit log of what was loaded and taken out. A failure is told and changes nothing:
    the run before it has succeeded, and the next one tries again.

    Returns:
        How many runs were removed.
    """
    try:
        with open_postgres(settings) as postgres, postgres.connect() as connection:  # one transaction
            old = [run_id for (run_id,) in connection.execute(OLD_RUNS, (settings.keep_runs_days,))]
            for table in ("validation_results", "step_runs", "pipeline_runs"):
                connection.execute(f"delete from quality.{table} where run_id = any(%s)", (old,))
            remove_followed_days(connection)
    except StorageError as error:
        log.warning("records of old runs are still there: %s", error.problem)
        return 0
    if old:
        log.info("removed the records of %d runs older than %d days", len(old), settings.keep_runs_days)
    return len(old)
