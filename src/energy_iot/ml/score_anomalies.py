"""The scoring step: brings ml.reading_scores up to date, then ml.meter_suspicions.

Most runs at night have one day to score, and many runs have nothing to do: what takes seconds to import is imported
when there is something to score.
"""

from dataclasses import replace

from energy_iot.ml.pending import RESCORE_ALL, find_pending_scores, find_pending_suspicions, parse_days
from energy_iot.ml.utils import open_features
from energy_iot.ml.versions import read_versions, version_in_force
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.storage.postgres import open_postgres


def score(context: RunContext) -> StepReport:
    """Score what changed with the version in force, then judge the meters; trains first when no version fits the data.

    Everything is scored when that version, the threshold or a definition is another one, when another version comes
    into force, and on request. Days asked for (`rescore`) are scored with the newest version: beside the scores that
    count, if it is not in force.

    Raises:
        UsageError: `rescore` makes no sense.
        ModelError: The version to score with is missing, altered, or of another program; or readings hold values that
            are no numbers.
        StorageError: PostgreSQL went away; the scores are as before.
    """
    asked, settings = context.options.rescore, context.settings
    days = None if asked is None or asked == RESCORE_ALL else parse_days(asked)
    full_refresh = context.options.full_refresh or asked == RESCORE_ALL
    with open_postgres(settings) as postgres, open_features(postgres) as transaction:
        with postgres.connect() as connection:
            versions = read_versions(connection)
            work = find_pending_scores(connection, versions, settings, full_refresh=full_refresh)
        if work.pending.nothing and days is None:
            report = StepReport(0, 0, skipped="up to date")
        else:
            from energy_iot.ml.scoring import Scoring

            report = Scoring(context, postgres, transaction, versions, work).run(days)
        with postgres.connect() as connection:
            found = find_pending_suspicions(connection, settings, full_refresh=full_refresh)
        if found is not None and not found[0].nothing:
            from energy_iot.ml.meter_suspicions import suspect_meters

            meters = suspect_meters(context, postgres, *found)
            report = replace(report, details={**report.details, "meters": meters}, skipped=None)
        with postgres.connect() as connection:
            in_force = version_in_force(read_versions(connection))
            connection.execute(
                "update quality.pipeline_runs set model_version = %s where run_id = %s",
                (in_force.number if in_force else None, context.run_id),
            )
    return report
