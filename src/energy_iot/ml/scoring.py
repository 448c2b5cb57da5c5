"""Scoring what is pending, in one transaction with the record of how far the scores are.

The scores of the version in force are there for every reading, before and after. Those of a newer version may stand
beside them for some days, for comparison, until these days are scored anew.
"""

from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from energy_iot.ml.batches import SCHEMA, ScoreTally, score_batches
from energy_iot.ml.config import (
    BATCH_READINGS,
    MIN_JUDGED_DAYS,
    NOTABLE_ERRORS,
    SCORE_DAYS_TABLE,
    SCORES_STATE,
    SCORES_TABLE,
)
from energy_iot.ml.drift import score_drift
from energy_iot.ml.feature_days import (
    days_after_changes,
    delete_days,
    make_days,
    make_habits,
    rebuild_feature_days,
    survey_days,
    update_feature_days,
)
from energy_iot.ml.features import rows_of_days
from energy_iot.ml.label_agreement import evaluate_labels, last_agreement
from energy_iot.ml.model_store import Model, load_model
from energy_iot.ml.pending import RESCORE_ALL, DayRange, PendingScores
from energy_iot.ml.score_days import count_latest, insert_score_days
from energy_iot.ml.train_anomaly_model import train_model, training_warnings
from energy_iot.ml.utils import stream_features
from energy_iot.ml.versions import (
    Card,
    ModelVersion,
    Survey,
    choose_version,
    outdated_settings,
    score_threshold,
    unused_features,
    version_in_force,
)
from energy_iot.pipeline import RunContext, StepReport
from energy_iot.storage.postgres import Postgres

SCORE_DAY: Final = "cast(reading_timestamp as date)"  # as in the table's index

# Temporary tables, of one transaction.
NEW_SCORES: Final = "new_reading_scores"
AFFECTED_DAYS: Final = "days_with_other_scores"
ASKED_DAYS: Final = "days_asked_for"
DAYS_TO_SCORE: Final = "days_to_score"


@dataclass(frozen=True)
class Scoring:
    """One scoring. All it writes is one transaction; a model that it trains comes into force by that one's end.

    Attributes:
        context: Of the step.
        postgres: Where things are that lie outside the transaction.
        transaction: An ADBC connection that has written nothing yet.
        versions: All model versions, newest first.
        work: What the scores have yet to follow.
    """

    context: RunContext
    postgres: Postgres
    transaction: Any
    versions: list[ModelVersion]
    work: PendingScores

    def run(self, asked: DayRange | None) -> StepReport:
        """Do what is pending, and score the days asked for."""
        rescore_all = self.context.options.rescore == RESCORE_ALL
        with self.transaction.cursor() as cursor:
            changed_days = self._follow_readings(cursor)
            survey = survey_days(cursor)
            if not survey.readings:
                return self._end_without_readings(cursor)
            chosen, reason = choose_version(self.versions, survey, prefer_newest=rescore_all)
            comes_into_force = chosen is None or not chosen.in_force
            whole = self.work.pending.whole or comes_into_force
            if whole:
                make_habits(cursor, history_days=self.context.settings.history_days)
            if chosen is None:
                model = self._train(cursor, survey, str(reason))
                warnings = training_warnings(model)
            else:
                model, warnings = self._load(chosen, survey)
            if comes_into_force and not rescore_all:
                warnings += self._replaced_version(model, reason)
            details = self._describe(model, whole=whole)
            details |= {"training_reason": reason} if chosen is None else {}
            details |= {} if whole else {"changed_days": changed_days}

            on_trial, asked_readings = None, 0
            if asked is not None:
                asked_readings = make_days(cursor, ASKED_DAYS, asked.query())
                on_trial, told = self._find_newer(model, survey)
                warnings += told
                warnings += () if asked_readings else (f"no readings on {asked}: nothing there to score again",)
            if whole:
                tally = self._score_all(cursor, model, survey)
            else:
                tally = self._score_affected(cursor, model, and_asked=asked is not None and on_trial is None)
            rows = tally.readings
            if tally.readings:
                details["scored_now"] = tally.to_details() | {"drift": score_drift(model.card, tally.bins)}
                warnings += self._judge_share(cursor, tally, details["threshold"], whole=whole)
            details["latest"] = count_latest(cursor)
            if on_trial is not None:
                details["trial"] = self._try_version(cursor, on_trial, model, str(asked), asked_readings)
                rows += asked_readings

            if comes_into_force:
                self._put_into_force(cursor, model)
            self._keep_state(cursor, model.card)
            self.transaction.commit()
        agreement = self._agreement_with_labels(model) if whole else last_agreement(self.postgres)
        details |= {"agreement": agreement} if agreement else {}
        return StepReport(rows, rows, warnings, details)

    def _end_without_readings(self, cursor: Any) -> StepReport:
        in_force = version_in_force(self.versions)
        cursor.execute(f"truncate {SCORES_TABLE}, {SCORE_DAYS_TABLE}")
        self._keep_state(cursor, in_force.card if in_force else None)
        self.transaction.commit()
        return StepReport(0, 0, skipped="no readings to score")

    def _load(self, version: ModelVersion, survey: Survey) -> tuple[Model, tuple[str, ...]]:
        """A version that fits, and what a person should know about it."""
        settings = self.context.settings
        model = load_model(settings.models_dir, version.card)
        told = model.warnings + outdated_settings(version.card, settings) + unused_features(version.card, survey)
        return model, told

    def _replaced_version(self, model: Model, reason: str | None) -> tuple[str, ...]:
        """That all scores are other ones, when nobody asked for it."""
        before = version_in_force(self.versions)
        if before is None:
            return ()
        return (
            f"model v{model.version} is in force now, and v{before.number} no more ({reason}): all readings were "
            "scored anew, so scores of earlier days are others than before",
        )

    def _find_newer(self, model: Model, survey: Survey) -> tuple[ModelVersion | None, tuple[str, ...]]:
        """The newest version that fits, if it is newer than the model; and why it is not the newest of all."""
        newest, why_not = choose_version(self.versions, survey, prefer_newest=True)
        told = (f"the newest model is not used: {why_not}",) if why_not else ()
        return (newest if newest is not None and newest.number > model.version else None), told

    def _describe(self, model: Model, *, whole: bool) -> dict[str, Any]:
        return {
            "mode": "whole" if whole else "incremental",
            "model_version": model.version,
            "trained": all(version.number != model.version for version in self.versions),
            "training_rows": model.card["training"]["rows"],
            "features": [feature.name for feature in model.features],
            "threshold": score_threshold(model.card, self.context.settings),
        }

    def _follow_readings(self, cursor: Any) -> int | None:
        """Bring ml.feature_days up to date; returns how many days of meters changed, None when all may have."""
        if self.work.pending.since is None:
            rebuild_feature_days(cursor)
            return None
        return update_feature_days(cursor, self.work.pending.since, history_days=self.context.settings.history_days)

    def _train(self, cursor: Any, survey: Survey, reason: str) -> Model:
        settings = self.context.settings
        readings = min(survey.readings, settings.training_rows)
        with self.context.progress.task(f"training a model: {reason}", readings) as advance:
            model = train_model(self.postgres, cursor, survey, settings)
            advance(model.card["training"]["rows"])
        return model

    def _score_all(self, cursor: Any, model: Model, survey: Survey) -> ScoreTally:
        """Make the scores of all readings the only ones."""
        tally = self._gather(cursor, model, None, survey.readings)
        cursor.execute(f"truncate {SCORES_TABLE}")
        # an index made of all rows at once takes less than half the time of one kept row by row
        cursor.execute(
            "select cast(cast(indexrelid as regclass) as text) as name, pg_get_indexdef(indexrelid) as definition "
            f"from pg_index where indrelid = cast('{SCORES_TABLE}' as regclass)"
        )
        indexes = cursor.fetch_arrow_table().to_pylist()
        for index in indexes:
            cursor.execute(f"drop index {index['name']}")
        self._insert(cursor)
        for index in indexes:
            cursor.execute(index["definition"])
        cursor.execute(f"analyze {SCORES_TABLE}")  # the marts' joins are planned on it
        cursor.execute(f"truncate {SCORE_DAYS_TABLE}")
        insert_score_days(cursor, tally.days)
        return tally

    def _score_affected(self, cursor: Any, model: Model, *, and_asked: bool) -> ScoreTally:
        """Make anew the scores that changes reach, and those of the days asked for.

        Feature values look back `history_days`, and habits look back as far on these. Scores of other versions are not
        those of the readings any more where changes reach.
        """
        reach_days = 2 * self.context.settings.history_days
        make_days(cursor, AFFECTED_DAYS, days_after_changes(reach_days))
        both = f"select * from {AFFECTED_DAYS}" + f" union select * from {ASKED_DAYS}" * and_asked
        readings = make_days(cursor, DAYS_TO_SCORE, both)
        make_habits(cursor, history_days=self.context.settings.history_days, days_table=DAYS_TO_SCORE)
        tally = self._gather(cursor, model, DAYS_TO_SCORE, readings)
        delete_days(cursor, SCORES_TABLE, SCORE_DAY, AFFECTED_DAYS)
        if and_asked:
            delete_days(cursor, SCORES_TABLE, SCORE_DAY, ASKED_DAYS, f"model_version = {model.version}")
        self._insert(cursor)
        delete_days(cursor, SCORE_DAYS_TABLE, "reading_date", AFFECTED_DAYS)
        if and_asked:
            delete_days(cursor, SCORE_DAYS_TABLE, "reading_date", ASKED_DAYS)
        insert_score_days(cursor, tally.days)
        return tally

    def _try_version(
        self, cursor: Any, newer: ModelVersion, in_force: Model, days: str, readings: int
    ) -> dict[str, Any]:
        """Score the days asked for with a newer version, beside the scores that count; compares the two there."""
        settings = self.context.settings
        model = load_model(settings.models_dir, newer.card)
        make_habits(cursor, history_days=settings.history_days, days_table=ASKED_DAYS)
        self._gather(cursor, model, ASKED_DAYS, readings)
        delete_days(cursor, SCORES_TABLE, SCORE_DAY, ASKED_DAYS, f"model_version = {model.version}")
        self._insert(cursor)
        cursor.execute(f"analyze {NEW_SCORES}, {SCORES_TABLE}")  # what compares the two joins them with other tables
        cursor.execute(
            "select count(*) as readings, count(*) filter (where newer.is_anomaly) as anomalies, "
            "count(*) filter (where counting.is_anomaly) as anomalies_in_force, "
            "count(*) filter (where newer.is_anomaly and counting.is_anomaly) as anomalies_in_both, "
            "avg(abs(newer.anomaly_score - counting.anomaly_score)) as mean_absolute_difference, "
            "corr(newer.anomaly_score, counting.anomaly_score) as correlation "
            f"from {NEW_SCORES} as newer "
            f"inner join {rows_of_days(SCORES_TABLE, SCORE_DAY, ASKED_DAYS)} as counting "
            f"on newer.reading_id = counting.reading_id and counting.model_version = {in_force.version}"
        )
        (found,) = cursor.fetch_arrow_table().to_pylist()
        assert found["readings"] == readings, "each reading has a score of the version in force"
        shares = {
            name: found[count] / readings if readings else 0.0
            for name, count in (
                ("anomaly_share", "anomalies"),
                ("anomaly_share_in_force", "anomalies_in_force"),
                ("anomaly_share_in_both", "anomalies_in_both"),
            )
        }
        self.context.progress.note(
            f"{days}: {shares['anomaly_share']:.2%} of {readings:,} readings are anomalies to model v{model.version}, "
            f"{shares['anomaly_share_in_force']:.2%} to v{in_force.version} in force, "
            f"{shares['anomaly_share_in_both']:.2%} to both"
        )
        return {"days": days, "model_version": model.version, "in_force": in_force.version, **found, **shares}

    def _gather(self, cursor: Any, model: Model, days_table: str | None, readings: int) -> ScoreTally:
        """Score readings into a temporary table, beside the old scores: readers wait for the exchange alone."""
        threshold = score_threshold(model.card, self.context.settings)
        cursor.execute(f"drop table if exists {NEW_SCORES}")
        cursor.execute(f"create temp table {NEW_SCORES} (like {SCORES_TABLE}) on commit drop")
        tally = ScoreTally()
        batches = stream_features(
            self.transaction, model.features, batch_readings=BATCH_READINGS, days_table=days_table
        )
        scored = score_batches(model, batches, threshold=threshold)
        with (
            self.context.progress.task("scoring readings", readings) as advance,
            closing(batches),
            closing(scored),  # first: its threads hold batches
        ):
            for batch in scored:
                cursor.adbc_ingest(NEW_SCORES, batch, mode="append", temporary=True)
                tally.add(batch)
                tally.days.add(batch)
                advance(batch.num_rows)
        return tally

    def _insert(self, cursor: Any) -> None:
        names = ", ".join(SCHEMA.names)
        cursor.execute(f"insert into {SCORES_TABLE} ({names}) select {names} from {NEW_SCORES}")

    def _judge_share(self, cursor: Any, tally: ScoreTally, threshold: float, *, whole: bool) -> tuple[str, ...]:
        """A warning when the share of anomalies is outside its bounds, and there is enough to say so.

        Of new days only too many are told, and only where chance does not explain them: one fault makes many readings
        of a day odd, so the share of a few days goes up and down by itself, and a quiet night is no fault.
        """
        share = tally.anomaly_share
        low, high = self.context.settings.expected_anomaly_share
        if low <= share <= high or (share < low and not whole):
            return ()
        cursor.execute(
            "select cast(count(*) as bigint) as days, "
            f"cast(sqrt(sum(power(anomalies - {share!r} * readings, 2))) as double precision) as deviation "
            "from (select count(*) as readings, count(*) filter (where is_anomaly) as anomalies "
            f"from {NEW_SCORES} group by meter_id, {SCORE_DAY}) as days"
        )
        (found,) = cursor.fetch_arrow_table().to_pylist()
        expected_by_chance = high if whole else high + NOTABLE_ERRORS * found["deviation"] / tally.readings
        if found["days"] < MIN_JUDGED_DAYS or low <= share <= expected_by_chance:
            return ()
        scored = "the readings" if whole else f"the {tally.readings:,} readings scored now"
        return (
            f"{share:.2%} of {scored} score above {threshold:.3g}, expected are {low:.2%} to {high:.2%}: "
            "look at the highest scores first; score_threshold or contamination moves the line",
        )

    def _agreement_with_labels(self, model: Model) -> dict[str, Any] | None:
        found = evaluate_labels(self.postgres, model.version)
        return found.to_details() if found else None

    def _put_into_force(self, cursor: Any, model: Model) -> None:
        cursor.execute(
            # later than all before, whatever the clock says
            "update ml.model_versions set in_force_since = greatest(now() at time zone 'utc', "
            "(select max(in_force_since) from ml.model_versions) + interval '1 microsecond') "
            f"where model_version = {model.version}"
        )

    def _keep_state(self, cursor: Any, card: Card | None) -> None:
        """Write how far the scores are, in their own transaction; all values are our own, so none needs quoting."""
        fingerprint = self.work.fingerprint(card, self.context.settings)
        cursor.execute(
            "insert into quality.derived_states (name, change_id, fingerprint) "
            f"values ('{SCORES_STATE}', {self.work.pending.until}, '{fingerprint}') on conflict (name) do update set "
            "change_id = excluded.change_id, fingerprint = excluded.fingerprint, updated_at = now() at time zone 'utc'"
        )
