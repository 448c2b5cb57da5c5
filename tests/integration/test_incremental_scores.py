"""Scores follow changes: the result is that of a full refresh, at any moment all or nothing, one version at a time.

The feature table is made here by SQL of exact windows over readings that the tests load, correct and take out again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from energy_iot.errors import StorageError, UsageError
from energy_iot.ml import scoring
from energy_iot.ml.features import FEATURES
from energy_iot.ml.pending import DayRange, parse_days
from energy_iot.ml.score_anomalies import score
from energy_iot.ml.train_anomaly_model import train
from energy_iot.pipeline import RunContext, RunOptions, StepReport, run_step, start_run
from energy_iot.reporting.progress import Advance, Progress
from energy_iot.settings import Settings
from energy_iot.storage.changes import DerivedState, write_state
from energy_iot.storage.postgres import Postgres
from tests.feature_fleet import FEATURE_COLUMNS, record_days

HISTORY_DAYS = 7
FIRST_DAY = date(2024, 3, 1)
HOURS = 24
FEATURES_TABLE = "intermediate.int_consumption_features"

# Values of a reading depend on readings of its day and the `history_days` before alone, to the last digit: numeric.
MAKE_FEATURES = f"""
insert into {FEATURES_TABLE}
select
    reading_id, meter_id, reading_timestamp, kwh::float8,
    (avg(kwh) over last_hour)::float8, average, deviation, kwh::float8 / nullif(average, 0),
    (kwh::float8 - usual) / nullif(spread, 0), sub_kwh::float8 / nullif(kwh::float8, 0), null, null,
    extract(epoch from reading_timestamp - first_value(reading_timestamp) over last_day)::float8 / 3600
from (
    select
        *,
        (avg(kwh) over last_day)::float8 as average,
        sqrt((var_samp(kwh) over last_day)::float8) as deviation,
        (avg(kwh) over same_hour)::float8 as usual,
        sqrt((var_samp(kwh) over same_hour)::float8) as spread
    from test_readings
    window
        last_day as (partition by meter_id order by reading_timestamp range interval '23:59:59' preceding),
        same_hour as (
            partition by meter_id, extract(hour from reading_timestamp) order by reading_timestamp
            range between interval '{HISTORY_DAYS} days' preceding and interval '1 day' preceding
        )
) as looked_back
window
    last_hour as (partition by meter_id order by reading_timestamp range interval '59:59' preceding),
    last_day as (partition by meter_id order by reading_timestamp range interval '23:59:59' preceding)
order by {{order}}
"""


@dataclass(frozen=True)
class Feed:
    """Readings that come, change and go; after each change the feature table is as the pipeline would leave it."""

    postgres: Postgres

    @classmethod
    def start(cls, postgres: Postgres) -> "Feed":
        """With no readings, models or scores, whatever was there."""
        with postgres.connect() as connection:
            connection.execute("truncate quality.derived_states, raw_data.changed_days, ml.reading_scores")
            connection.execute("truncate ml.model_versions")
            connection.execute(f"drop table if exists ml.feature_days, test_readings, {FEATURES_TABLE}")
            connection.execute(f"create table {FEATURES_TABLE} ({FEATURE_COLUMNS})")
            connection.execute(f"create index on {FEATURES_TABLE} (meter_id, cast(reading_timestamp as date))")
            connection.execute(
                "create table test_readings (reading_id bigint generated always as identity, meter_id text, "
                "reading_timestamp timestamp, kwh numeric, sub_kwh numeric)"
            )
        return cls(postgres)

    def load(self, meter: str, first: int, days: int, *, seed: int = 0, flat: bool = False) -> None:
        """Hourly readings of some days, or corrected ones for those that are there."""
        random = np.random.default_rng([seed, first, days, *meter.encode()])
        with self._changing(meter, first, days) as connection:
            start = datetime.combine(FIRST_DAY, datetime.min.time()) + timedelta(days=first)
            hours = [hour for hour in range(days * HOURS) if random.random() > 0.03]
            shape = 1 + np.exp(-(((np.arange(HOURS) - 20) / 3) ** 2))
            rows = []
            for hour in hours:
                kwh = 0.4 if flat else shape[hour % HOURS] * random.lognormal(0, 0.3)
                kwh *= 15 if random.random() < 0.004 else 1
                sub_kwh = round(kwh * 0.6, 4) if meter == "m1" else None
                rows.append((meter, start + timedelta(hours=hour), round(kwh, 4), sub_kwh))
            connection.execute(
                "create temp table corrected (meter_id text, reading_timestamp timestamp, kwh numeric, "
                "sub_kwh numeric) on commit drop"
            )
            with connection.cursor().copy(
                "copy corrected (meter_id, reading_timestamp, kwh, sub_kwh) from stdin"
            ) as copy:
                for row in rows:
                    copy.write_row(row)
            connection.execute(
                "delete from test_readings using corrected where test_readings.meter_id = corrected.meter_id "
                "and test_readings.reading_timestamp = corrected.reading_timestamp"
            )
            connection.execute(
                "insert into test_readings (meter_id, reading_timestamp, kwh, sub_kwh) "
                "select meter_id, reading_timestamp, kwh, sub_kwh from corrected"
            )

    def forget(self, meter: str, first: int, days: int) -> None:
        """Take the readings of some days out again."""
        with self._changing(meter, first, days, kind="forget") as connection:
            start = FIRST_DAY + timedelta(days=first)
            connection.execute(
                "delete from test_readings where meter_id = %s and reading_timestamp >= %s and reading_timestamp < %s",
                (meter, start, start + timedelta(days=days)),
            )

    @contextmanager
    def _changing(self, meter: str, first: int, days: int, kind: str = "load") -> Iterator[psycopg.Connection]:
        with self.postgres.connect() as connection:
            yield connection
            touched = {(meter, FIRST_DAY + timedelta(days=day)) for day in range(first, first + days)}
            change = record_days(connection, touched, kind)
            connection.execute(f"truncate {FEATURES_TABLE}")
            connection.execute(MAKE_FEATURES.format(order=f"hashint8(reading_id + {change})").encode())
            write_state(connection, DerivedState("int_consumption_features", change, "as it is"))

    def stored(self) -> dict[str, Any]:
        """All that scoring derives, run timestamps aside."""
        with self.postgres.connect() as connection:
            return {
                "scores": connection.execute(
                    "select model_version, meter_id, reading_timestamp, reading_id, anomaly_score, is_anomaly "
                    "from ml.reading_scores order by 1, 2, 3"
                ).fetchall(),
                "days": connection.execute("select * from ml.feature_days order by 1, 2").fetchall(),
                "state": connection.execute(
                    "select change_id, fingerprint from quality.derived_states where name = 'ml_score'"
                ).fetchall(),
                "in force": connection.execute(
                    "select model_version, in_force_since from ml.model_versions where in_force_since is not null "
                    "order by 2"
                ).fetchall(),
            }

    def check_scored_whole(self) -> None:
        """Each reading has one score of the version in force."""
        with self.postgres.connect() as connection:
            readings = connection.execute("select reading_id from test_readings order by 1").fetchall()
            scored = connection.execute(
                "select reading_id from ml.reading_scores where model_version = (select model_version from "
                "ml.model_versions where in_force_since is not null order by in_force_since desc limit 1) order by 1"
            ).fetchall()
        assert scored == readings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Small forests, and a history that a test can outlive."""
    return settings.model_copy(update={"trees": 10, "history_days": HISTORY_DAYS, "training_rows": 500})


@pytest.fixture
def feed(postgres: Postgres) -> Feed:
    """Two meters, forty days, not scored yet."""
    feed = Feed.start(postgres)
    feed.load("m1", 0, 40)
    feed.load("m2", 0, 40)
    return feed


Score = Callable[..., StepReport]


def make_score(settings: Settings) -> Score:
    def run(what: str | None = None, *, full_refresh: bool = False, progress: Progress | None = None) -> StepReport:
        options = RunOptions(rescore=what, full_refresh=full_refresh)
        return score(RunContext(settings, start_run(settings, options), options, progress or Progress()))

    return run


@pytest.fixture
def rescore(settings: Settings, postgres: Postgres) -> Score:
    """Score with the options of the command line."""
    return make_score(settings)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in ("days", "scores"):
        assert len(found[name]) == len(expected[name])
        assert [pair for pair in zip(found[name], expected[name], strict=True) if pair[0] != pair[1]] == []


# --- incremental equals whole ---------------------------------------------------------------------------------------

meters = st.sampled_from(["m1", "m2", "m 3, ü'"])
changes = st.one_of(
    st.tuples(st.just("load"), meters, st.integers(0, 40), st.integers(1, 12), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("load"), meters, st.integers(0, 40), st.just(1), st.integers(0, 5), st.just(False)),
    st.tuples(st.just("forget"), meters, st.integers(0, 30), st.integers(1, 20)),
)


def change(feed: Feed, kind: str, meter: str, first: int, days: int, seed: int = 0, flat: bool = False) -> None:
    if kind == "load":
        feed.load(meter, first, days, seed=seed, flat=flat)
    else:
        feed.forget(meter, first, days)


histories = st.lists(st.lists(changes, min_size=1, max_size=3), min_size=2, max_size=4)


def check_incremental(postgres: Postgres, settings: Settings, steps: list[list[Any]]) -> None:
    feed, rescore = Feed.start(postgres), make_score(settings)
    feed.load("m1", 5, 20)
    for step in steps:
        rescore()
        feed.check_scored_whole()
        for one in step:
            change(feed, *one)
    rescore()
    feed.check_scored_whole()
    found = feed.stored()
    again = rescore(full_refresh=True)
    assert again.skipped or not again.details["trained"]
    assert_same(found, feed.stored())
    assert found["in force"] == feed.stored()["in force"]


@hypothesis_settings(max_examples=5, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=histories)
def test_any_changes_give_what_a_full_refresh_gives(
    postgres: Postgres, settings: Settings, steps: list[list[Any]]
) -> None:
    check_incremental(postgres, settings, steps)


@pytest.mark.heavy
@hypothesis_settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(steps=histories)
def test_any_changes_give_what_a_full_refresh_gives_more(
    postgres: Postgres, settings: Settings, steps: list[list[Any]]
) -> None:
    check_incremental(postgres, settings, steps)


@pytest.mark.parametrize(
    ("kind", "first", "days"),
    [("load", 40, 1), ("load", 39, 1), ("load", 12, 1), ("load", 0, 1), ("forget", 39, 1), ("forget", 20, 3)],
    ids=["a new day", "the last day", "a day in the middle", "the first day", "last day gone", "days gone"],
)
def test_a_change_reaches_no_further_than_habits_look_back(
    feed: Feed, rescore: Score, kind: str, first: int, days: int
) -> None:
    rescore()
    before = feed.stored()
    change(feed, kind, "m1", first, days, seed=9)
    report = rescore()
    assert report.details["mode"] == "incremental"
    assert report.details["changed_days"] == days
    reach = FIRST_DAY + timedelta(days=first), FIRST_DAY + timedelta(days=first + days - 1 + 2 * HISTORY_DAYS)
    after = feed.stored()
    touched = [row for row in after["scores"] if row[1] == "m1" and reach[0] <= row[2].date() <= reach[1]]
    assert report.rows_in == report.rows_out == len(touched) < len(after["scores"]) / 3
    assert set(after["scores"]) - set(before["scores"]) <= set(touched)
    scored_now = report.details["scored_now"]["readings"] if touched else 0
    assert scored_now == len(touched)
    rescore(full_refresh=True)
    assert_same(after, feed.stored())


def test_scores_change_as_far_as_history_reaches(feed: Feed, rescore: Score) -> None:
    """Or the tests above would hold for a scoring that looks at changed days alone."""
    rescore()
    before = feed.stored()
    feed.forget("m1", 12, 1)
    rescore()
    changed = {row[2].date() for row in set(feed.stored()["scores"]) ^ set(before["scores"])}
    assert max(changed) >= FIRST_DAY + timedelta(days=12 + HISTORY_DAYS)


def test_only_days_in_reach_are_read(feed: Feed, rescore: Score, postgres: Postgres) -> None:
    """What lies elsewhere could be anything: even values that no scoring would take."""
    rescore()
    before = feed.stored()
    feed.load("m1", 40, 1)
    with postgres.connect() as connection:
        connection.execute(
            f"update {FEATURES_TABLE} set avg_consumption_24h = 'NaN' where meter_id = 'm2' or reading_timestamp < %s",
            (FIRST_DAY + timedelta(days=30),),
        )
    report = rescore()
    assert report.rows_in == len(feed.stored()["scores"]) - len(before["scores"])
    assert set(before["scores"]) <= set(feed.stored()["scores"])


def test_scores_wait_for_the_features(feed: Feed, rescore: Score, postgres: Postgres) -> None:
    """A change that the feature table has not followed is not taken for followed."""
    rescore()
    with postgres.connect() as connection:
        record_days(connection, {("m1", FIRST_DAY + timedelta(days=40))})
    assert rescore().skipped == "up to date"
    feed.load("m1", 40, 1)
    assert rescore().details["changed_days"] == 1
    feed.check_scored_whole()


def test_features_built_otherwise_are_scored_anew(feed: Feed, rescore: Score, postgres: Postgres) -> None:
    rescore()
    with postgres.connect() as connection:
        connection.execute("update quality.derived_states set fingerprint = 'other SQL' where name <> 'ml_score'")
    assert rescore().details["mode"] == "whole"
    assert rescore().skipped == "up to date"


@pytest.mark.parametrize("changed", [{"score_threshold": 0.5}, {"history_days": 14}, {"contamination": 0.1}])
def test_settings_that_scores_follow_from_score_everything(
    feed: Feed, rescore: Score, settings: Settings, changed: dict[str, Any]
) -> None:
    rescore()
    other = make_score(settings.model_copy(update=changed))
    report = other()
    assert (report.details["mode"], report.details["trained"]) == ("whole", False)
    assert other().skipped == "up to date"


def test_the_order_on_disk_does_not_matter(feed: Feed, rescore: Score, postgres: Postgres) -> None:
    rescore()
    found = feed.stored()
    with postgres.connect() as connection:
        connection.execute(
            f"create table shuffled as select * from {FEATURES_TABLE} order by hashint8(reading_id * 31)"
        )
        connection.execute(f"truncate {FEATURES_TABLE}")
        connection.execute(f"insert into {FEATURES_TABLE} table shuffled")
    rescore(full_refresh=True)
    assert_same(feed.stored(), found)


def test_many_changes_are_told_apart_from_one(feed: Feed, rescore: Score, postgres: Postgres) -> None:
    """Days apart and in a row, of several meters, changed twice: each scored once."""
    rescore()
    for first, days in ((2, 1), (3, 2), (30, 1), (30, 1), (38, 2)):
        feed.load("m2", first, days, seed=first)
    feed.load("m1", 40, 2)
    report = rescore()
    assert report.details["changed_days"] == 1 + 2 + 1 + 2 + 2
    feed.check_scored_whole()
    found = feed.stored()
    rescore(full_refresh=True)
    assert_same(found, feed.stored())


# --- all or nothing -------------------------------------------------------------------------------------------------


class Interrupted(Progress):
    """Calls a function once some readings are scored."""

    def __init__(self, strike: Callable[[], object], after_batches: int) -> None:
        self._strike, self._left = strike, after_batches

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
        def advance(amount: int) -> None:
            self._left -= 1
            if not self._left:
                self._strike()

        yield advance if description == "scoring readings" else lambda amount: None


@pytest.mark.parametrize(
    ("cause", "work"),
    [
        ("exception", "first"),
        ("exception", "change"),
        ("exception", "threshold"),
        ("exception", "another version"),
        ("connection killed", "change"),
        ("connection killed", "another version"),
    ],
)
def test_a_crash_in_the_middle_leaves_all_as_it_was(
    feed: Feed,
    rescore: Score,
    settings: Settings,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    work: str,
    cause: str,
) -> None:
    what = None
    if work != "first":
        rescore()
        feed.forget("m2", 20, 3)
        feed.load("m1", 30, 3, seed=5)
    if work == "threshold":
        rescore = make_score(settings.model_copy(update={"score_threshold": 0.5}))
    if work == "another version":
        train(RunContext(settings.model_copy(update={"random_seed": 5}), start_run(settings, RunOptions())))
        what = "all"
    if work == "first":
        with postgres.connect() as connection:
            connection.execute("create table ml.feature_days (meter_id text, reading_date date)")  # of a version before
    before = feed.stored()
    monkeypatch.setattr(scoring, "BATCH_READINGS", 100)

    def strike() -> None:
        if cause == "exception":
            raise KeyboardInterrupt
        with postgres.connect() as connection:
            killed = connection.execute(
                "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid() and state = 'idle in transaction'"
            ).fetchall()
        assert killed == [(True,)]

    with pytest.raises(KeyboardInterrupt if cause == "exception" else StorageError):
        rescore(what, progress=Interrupted(strike, after_batches=3))
    assert feed.stored() == before
    rescore(what)
    feed.check_scored_whole()
    found = feed.stored()
    rescore(what, full_refresh=True)
    assert_same(found, feed.stored())


# --- versions -------------------------------------------------------------------------------------------------------


def train_other(settings: Settings) -> int:
    """Another version, not in force; returns its number."""
    other = settings.model_copy(update={"random_seed": 99})
    return int(train(RunContext(other, start_run(other, RunOptions()))).details["model_version"])


def versions_of(stored: dict[str, Any]) -> dict[int, int]:
    numbers = [row[0] for row in stored["scores"]]
    return {number: numbers.count(number) for number in sorted(set(numbers))}


def test_a_version_is_tried_on_some_days_beside_the_one_in_force(
    feed: Feed, rescore: Score, settings: Settings
) -> None:
    rescore()
    before = feed.stored()
    assert train_other(settings) == 2
    report = rescore("2024-03-11..2024-03-20")
    after = feed.stored()
    own = {row[3]: row for row in after["scores"] if row[0] == 1}
    tried = {row[3]: row for row in after["scores"] if row[0] == 2}
    assert list(own.values()) == before["scores"]
    assert {row[2].date() for row in tried.values()} == {date(2024, 3, day) for day in range(11, 21)}
    assert {key: row[1:4] for key, row in tried.items()} == {key: own[key][1:4] for key in tried}
    assert report.details["model_version"] == 1
    assert report.rows_out == len(tried)
    assert "scored_now" not in report.details
    trial = report.details["trial"]
    pairs = [(row[4], own[key][4], row[5], own[key][5]) for key, row in tried.items()]
    newer, counting = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    assert trial["readings"] == len(pairs)
    assert (trial["model_version"], trial["in_force"], trial["days"]) == (2, 1, "2024-03-11..2024-03-20")
    assert trial["anomalies"] == sum(pair[2] for pair in pairs)
    assert trial["anomalies_in_force"] == sum(pair[3] for pair in pairs)
    assert trial["anomalies_in_both"] == sum(pair[2] and pair[3] for pair in pairs)
    assert trial["anomaly_share"] == pytest.approx(trial["anomalies"] / len(pairs))
    assert trial["mean_absolute_difference"] == pytest.approx(np.mean(np.abs(newer - counting)))
    assert 0 < trial["mean_absolute_difference"] < 0.2
    assert trial["correlation"] == pytest.approx(np.corrcoef(newer, counting)[0, 1])

    assert rescore("2024-03-11..2024-03-20").details["trial"] == trial  # again: the same
    assert feed.stored() == after
    assert rescore().skipped == "up to date"

    whole = rescore("all")
    assert (whole.details["model_version"], whole.details["trained"]) == (2, False)
    assert versions_of(feed.stored()) == {2: len(own)}
    scored = {row[3]: row for row in feed.stored()["scores"]}
    assert {key: scored[key] for key in tried} == tried
    assert [number for number, _ in feed.stored()["in force"]] == [1, 2]


def test_scores_of_a_version_on_trial_go_with_the_readings(feed: Feed, rescore: Score, settings: Settings) -> None:
    rescore()
    train_other(settings)
    rescore("2024-03-11..2024-03-20")
    feed.load("m1", 16, 1, seed=3)  # 17 March
    report = rescore()
    assert report.details["model_version"] == 1
    tried = {(row[1], row[2].day) for row in feed.stored()["scores"] if row[0] == 2}
    assert tried == {("m1", day) for day in range(11, 17)} | {("m2", day) for day in range(11, 21)}
    feed.check_scored_whole()
    rescore(full_refresh=True)
    assert versions_of(feed.stored()).keys() == {1}


@pytest.mark.parametrize(
    ("days", "first", "last"),
    [("..2024-03-03", 1, 3), ("2024-03-30..", 30, 40), ("2024-03-05..2024-03-05", 5, 5), ("..", 1, 40)],
)
def test_days_of_the_version_in_force_come_out_the_same(
    feed: Feed, rescore: Score, days: str, first: int, last: int
) -> None:
    rescore()
    before = feed.stored()
    feed.load("m1", 40, 1)
    found = rescore(days)
    assert "trial" not in found.details
    asked = [row for row in before["scores"] if first <= (row[2].date() - FIRST_DAY).days + 1 <= last]
    new = set(feed.stored()["scores"]) - set(before["scores"])
    assert new
    assert found.rows_out == len(asked) + len(new)
    feed.check_scored_whole()
    after = feed.stored()
    rescore(full_refresh=True)
    assert_same(after, feed.stored())


def test_what_is_pending_is_done_before_days_are_tried(feed: Feed, rescore: Score, settings: Settings) -> None:
    rescore()
    train_other(settings)
    feed.load("m1", 40, 2)
    report = rescore("2024-04-11..")  # the second of the new days
    assert report.details["scored_now"]["readings"] > report.details["trial"]["readings"] > 0
    feed.check_scored_whole()


def test_days_before_anything_was_scored_mean_everything(feed: Feed, rescore: Score) -> None:
    report = rescore("2024-03-05..2024-03-06")
    assert (report.details["mode"], report.details["trained"]) == ("whole", True)
    assert "trial" not in report.details
    feed.check_scored_whole()


def test_days_without_readings_are_told(feed: Feed, rescore: Score, settings: Settings) -> None:
    rescore()
    assert rescore("2030-01-01..").warnings == ("no readings on 2030-01-01..: nothing there to score again",)
    train_other(settings)
    report = rescore("..2023-12-31")
    assert report.details["trial"]["readings"] == 0
    assert report.details["trial"]["correlation"] is None
    assert report.warnings == ("no readings on ..2023-12-31: nothing there to score again",)


@pytest.mark.parametrize(
    "text", ["", "ALL", "2024-03-01", "2024-3-1..", "2024-02-30..", "1..2", "2024-03-01...", "a..b"]
)
def test_what_is_no_day_is_refused_with_examples(feed: Feed, rescore: Score, text: str) -> None:
    with pytest.raises(UsageError, match="--rescore") as raised:
        rescore(text)
    assert "--rescore all" in raised.value.fix
    assert "2026-10-01..2026-10-31" in raised.value.fix


def test_days_the_wrong_way_round_are_turned() -> None:
    with pytest.raises(UsageError, match="ends before it begins") as raised:
        parse_days("2024-03-02..2024-03-01")
    assert raised.value.fix == "write --rescore 2024-03-01..2024-03-02"


@given(st.none() | st.dates(), st.none() | st.dates())
def test_days_are_read_as_they_are_written(first: date | None, last: date | None) -> None:
    if first and last:
        first, last = sorted((first, last))
    assert parse_days(str(DayRange(first, last))) == DayRange(first, last)


def test_a_version_that_data_outgrew_is_replaced_whole(feed: Feed, rescore: Score, settings: Settings) -> None:
    feed.forget("m2", 0, 40)
    rescore()
    feed.load("m2", 0, 40)
    feed.load("m3", 0, 10)
    report = rescore()
    assert report.details["trained"]
    assert report.details["mode"] == "whole"
    assert "model v2 is in force now, and v1 no more" in report.warnings[0]
    assert versions_of(feed.stored()).keys() == {2}
    feed.check_scored_whole()


def test_a_version_trained_since_takes_over_when_the_one_in_force_does_not_fit(
    feed: Feed, rescore: Score, settings: Settings
) -> None:
    feed.forget("m2", 0, 40)
    rescore()
    feed.load("m2", 0, 40)
    feed.load("m3", 0, 10)
    assert train_other(settings) == 2
    report = rescore()
    assert (report.details["trained"], report.details["model_version"]) == (False, 2)
    assert versions_of(feed.stored()).keys() == {2}


def test_the_last_to_come_into_force_is_in_force_whatever_the_clock_says(
    feed: Feed, rescore: Score, settings: Settings, postgres: Postgres
) -> None:
    rescore()
    with postgres.connect() as connection:
        connection.execute("update ml.model_versions set in_force_since = '2999-01-01'")
    train_other(settings)
    rescore("all")
    assert [number for number, _ in feed.stored()["in force"]] == [1, 2]
    assert rescore().skipped == "up to date"


def test_a_model_of_another_program_that_never_was_in_force_is_passed_over(
    feed: Feed, rescore: Score, settings: Settings, postgres: Postgres
) -> None:
    train_other(settings)
    with postgres.connect() as connection:
        connection.execute(  # and its card lacks what ours say
            "update ml.model_versions set card = jsonb_set(card, '{features,0,value}', '\"another formula\"') "
            "#- '{training,nothing_to_compare}' #- '{parameters,history_days}'"
        )
    report = rescore()
    assert report.details["trained"]
    assert f"computed otherwise here: {FEATURES[0].name}" in report.details["training_reason"]


# --- what an operator is told ---------------------------------------------------------------------------------------


def test_an_odd_day_of_one_meter_is_no_warning(feed: Feed, rescore: Score, settings: Settings) -> None:
    rescore = make_score(settings.model_copy(update={"score_threshold": 0.4}))
    rescore()
    feed.load("m1", 40, 1)
    report = rescore()
    assert report.details["scored_now"]["anomaly_share"] > settings.expected_anomaly_share[1]
    assert report.warnings == ()


def test_new_days_full_of_anomalies_are_a_warning(feed: Feed, rescore: Score, settings: Settings) -> None:
    for meter in range(3, 8):
        feed.load(f"m{meter}", 10, 30)
    rescore = make_score(settings.model_copy(update={"score_threshold": 0.5}))
    rescore()
    for meter in range(1, 8):
        feed.load(f"m{meter}", 40, 6, flat=True)
    report = rescore()
    share = report.details["scored_now"]["anomaly_share"]
    assert f"{share:.2%} of the {report.rows_in:,} readings scored now score above" in report.warnings[0]


def test_the_step_is_recorded(feed: Feed, settings: Settings, postgres: Postgres) -> None:
    run_step("ml_score", RunContext(settings, start_run(settings, RunOptions())))
    feed.load("m1", 40, 1)
    context = RunContext(settings, start_run(settings, RunOptions()))
    run_step("ml_score", replace(context))
    with postgres.connect() as connection:
        found = connection.execute(
            "select status, rows_in, rows_out, details ->> 'mode', details -> 'changed_days' from quality.step_runs "
            "order by id desc limit 1"
        ).fetchone()
        run = connection.execute(
            "select model_version from quality.pipeline_runs where run_id = %s", (context.run_id,)
        ).fetchone()
    assert found is not None
    assert found[0] == "succeeded"
    assert 0 < found[1] == found[2] <= HOURS
    assert found[3:] == ("incremental", 1)
    assert run == (1,)
